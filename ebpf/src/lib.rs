//! Kernel-side probes, their event structs and the embedded object.
