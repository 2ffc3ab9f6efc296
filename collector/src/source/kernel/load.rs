//! Loads the probes, each alone, so that one refusal costs one probe.

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use foretide_ebpf::event::{Control, Identity, Plain, SLOTS_PER_CPU, Slot, Taken, Tally};

use super::{btf, shared::Shared};
use crate::probe::{Probe, ProbeState, Report};

/// Program, hook, and what is not seen without it; the first is the one that nothing works without.
const PROBES: &[(&str, &str, &str)] = &[
    ("sys_exit", "sys_exit", "opens, reads and closes"),
    ("fault", "mm_filemap_fault", "first touches of mapped files that were not in the page cache"),
    ("map_pages", "mm_filemap_map_pages", "first touches of mapped files that were in the page cache"),
    ("uring_complete", "io_uring_complete", "reads through io_uring"),
    ("sched_switch", "sched_switch", "how long readers were blocked"),
    ("process_fork", "sched_process_fork", "which processes belong to one run, if they live only briefly"),
    ("process_exec", "sched_process_exec", "what a process runs, if it lives only briefly"),
    ("process_exit", "sched_process_exit", "when a run ends, to the moment; it is noticed within a second"),
];

/// The loaded object and its maps.
pub(super) struct Loaded {
    pub ring: RingBuf<MapData>,
    pub slots: Shared<Slot>,
    pub takens: Shared<Taken>,
    pub tallies: Shared<Tally>,
    pub announced: Shared<u64>,
    pub identities: Shared<Identity>,
    pub control: Shared<Control>,
    pub roots: aya::maps::HashMap<MapData, u64, [u8; 16]>,
    pub skipped: aya::maps::HashMap<MapData, u32, u8>,
    /// The programs stay attached as long as this lives.
    _programs: Ebpf,
}

/// Loads and attaches what the kernel takes.
pub(super) fn load(ring_bytes: u32) -> Result<(Loaded, Report), String> {
    let btf_bytes = std::fs::read("/sys/kernel/btf/vmlinux")
        .map_err(|e| format!("the kernel has no type information in /sys/kernel/btf/vmlinux ({e})"))?;
    let cast = btf::function_id(&btf_bytes, "bpf_rdonly_cast");
    let mut object = foretide_ebpf::OBJECT.to_vec();
    btf::resolve_casts(&mut object, cast);
    let types = Btf::from_sys_fs().map_err(|e| e.to_string())?;
    let cpus = aya::util::nr_cpus().map_err(|(what, e)| format!("{what}: {e}"))?;
    let (typed_loads, own_process) = (u32::from(cast.is_some()), std::process::id());
    let slots = (cpus * SLOTS_PER_CPU) as u32;
    let mut programs = EbpfLoader::new()
        .btf(Some(&types))
        .override_global("typed_loads", &typed_loads, true)
        .override_global("own_process", &own_process, true)
        .map_max_entries("slots", slots)
        .map_max_entries("takens", slots)
        .map_max_entries("tallies", cpus as u32)
        .map_max_entries("events", ring_bytes)
        .load(&object)
        .map_err(|e| why(&e))?;
    let report = attach(&mut programs, &types);
    let loaded = maps(programs)?;
    Ok((loaded, report))
}

fn attach(programs: &mut Ebpf, types: &Btf) -> Report {
    let mut report = Report::default();
    for (name, hook, without) in PROBES {
        let state = match attach_one(programs, name, hook, types) {
            Ok(()) => ProbeState::Loaded,
            Err(why) => ProbeState::Refused { why },
        };
        report.probes.push(Probe { hook: (*hook).into(), state, without: (*without).into() });
    }
    report
}

fn attach_one(programs: &mut Ebpf, name: &str, hook: &str, types: &Btf) -> Result<(), String> {
    let program = programs.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|e| why(&e))?;
    program.load(hook, types).map_err(|e| why(&e))?;
    program.attach().map_err(|e| why(&e))?;
    Ok(())
}

fn maps(mut programs: Ebpf) -> Result<Loaded, String> {
    let mut take = |name: &str| programs.take_map(name).ok_or_else(|| format!("the object has no map {name}"));
    let ring = RingBuf::try_from(take("events")?).map_err(|e| why(&e))?;
    let (slots, takens, tallies) = (share(take("slots")?)?, share(take("takens")?)?, share(take("tallies")?)?);
    let (announced, identities) = (share(take("announced")?)?, share(take("identities")?)?);
    let control = share(take("controls")?)?;
    let roots = take("roots")?.try_into().map_err(|e| why(&e))?;
    let skipped = take("skipped")?.try_into().map_err(|e| why(&e))?;
    Ok(Loaded { ring, slots, takens, tallies, announced, identities, control, roots, skipped, _programs: programs })
}

/// Maps an array; the mapping keeps the kernel's map alive.
fn share<T: Plain>(map: Map) -> Result<Shared<T>, String> {
    use std::os::fd::AsFd;
    let Map::Array(data) = map else { return Err("a shared map is no array".into()) };
    let entries = data.info().map_err(|e| why(&e))?.max_entries() as usize;
    Shared::map(data.fd().as_fd(), entries).map_err(|e| format!("a map cannot be shared with the kernel: {e}"))
}

/// An error with its causes, on one line; the verifier's log, if there is one, by its last lines.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let tail = lines.len().saturating_sub(4).max(1);
    let mut short: Vec<&str> = lines.iter().take(1).copied().collect();
    short.extend(lines.iter().skip(tail));
    short.join(" | ")
}
