//! Loads the probes, each alone, so that one refusal costs one probe.
//!
//! Which program goes to a hook depends on the kernel: the object with typed loads where `bpf_rdonly_cast` is there,
//! the io_uring program that fits the tracepoint's arguments, and a function's entry where a tracepoint is missing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, FEntry};
use aya::{Btf, Ebpf, EbpfLoader};
use foretide_ebpf::event::{Control, Identity, Plain, SLOTS_PER_CPU, Slot, Taken, Tally};

use super::btf::{Types, resolve_casts};
use super::cost::Programs;
use super::shared::Shared;
use crate::probe::{Probe, ProbeState, Report, Tier};

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Tracepoint(&'static str),
    Function(&'static str),
}

/// One thing to see: the ways to see it, best first, and what is not seen without it.
struct Wanted {
    ways: &'static [(&'static str, Hook)],
    without: &'static str,
}

const SYS_EXIT: Wanted =
    Wanted { ways: &[("sys_exit", Hook::Tracepoint("sys_exit"))], without: "opens, reads and closes" };
const PAGES: Wanted = Wanted {
    ways: &[("pages", Hook::Tracepoint("mm_filemap_get_pages"))],
    without: "reads: the light tier needs this hook, use the full one",
};
const URING: Wanted =
    Wanted { ways: &[("uring_complete", Hook::Tracepoint("io_uring_complete"))], without: "reads through io_uring" };
const URING_RESULT: Wanted =
    Wanted { ways: &[("uring_complete_result", Hook::Tracepoint("io_uring_complete"))], without: URING.without };
/// What both tiers want.
const COMMON: &[Wanted] = &[
    Wanted {
        ways: &[("fault", Hook::Tracepoint("mm_filemap_fault")), ("fault_entry", Hook::Function("filemap_fault"))],
        without: "first touches of mapped files that were not in the page cache",
    },
    Wanted {
        ways: &[
            ("map_pages", Hook::Tracepoint("mm_filemap_map_pages")),
            ("map_pages_entry", Hook::Function("filemap_map_pages")),
        ],
        without: "first touches of mapped files that were in the page cache",
    },
    Wanted { ways: &[("sched_switch", Hook::Tracepoint("sched_switch"))], without: "how long readers were blocked" },
    Wanted {
        ways: &[("process_fork", Hook::Tracepoint("sched_process_fork"))],
        without: "which processes belong to one run, if they live only briefly",
    },
    Wanted {
        ways: &[("process_exec", Hook::Tracepoint("sched_process_exec"))],
        without: "what a process runs, if it lives only briefly",
    },
    Wanted {
        ways: &[("process_exit", Hook::Tracepoint("sched_process_exit"))],
        without: "when a run ends, to the moment; it is noticed within a second",
    },
];
/// `io_uring_complete` as [`URING`] reads it: ring, request, completion. Older kernels pass the completion in pieces.
const URING_ARGUMENTS: usize = 3;

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
    programs: Ebpf,
    /// The same for who asks for their cost.
    pub attached: Arc<Programs>,
    tier: Tier,
}

/// For as long as the agent asks the probe at `sys_exit`; see [`Loaded::begin_asking`].
pub(super) struct Asking(Option<BtfTracePointLinkId>);

impl Loaded {
    /// Attaches the probe that answers [`super::roots::ask`], which the light tier keeps detached.
    pub(super) fn begin_asking(&mut self) -> Result<Asking, String> {
        if self.tier == Tier::Full {
            return Ok(Asking(None));
        }
        let program = tracepoint(&mut self.programs, "sys_exit")?;
        program.attach().map(|link| Asking(Some(link))).map_err(|e| why(&e))
    }

    pub(super) fn end_asking(&mut self, asking: Asking) -> Result<(), String> {
        let Asking(Some(link)) = asking else { return Ok(()) };
        tracepoint(&mut self.programs, "sys_exit")?.detach(link).map_err(|e| why(&e))
    }
}

/// Loads and attaches what the kernel takes.
pub(super) fn load(tier: Tier, ring_bytes: u32) -> Result<(Loaded, Report), String> {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux")
        .map_err(|e| format!("the kernel has no type information in /sys/kernel/btf/vmlinux ({e})"))?;
    let known = Types::read(&btf);
    let object = match known.function("bpf_rdonly_cast") {
        Some(cast) => {
            let mut object = foretide_ebpf::TYPED.to_vec();
            resolve_casts(&mut object, cast);
            object
        }
        None => foretide_ebpf::PLAIN.to_vec(),
    };
    let uring = match known.tracepoint_arguments("io_uring_complete") {
        Some(URING_ARGUMENTS) => URING,
        _ => URING_RESULT,
    };
    let types = Btf::from_sys_fs().map_err(|e| e.to_string())?;
    let cpus = aya::util::nr_cpus().map_err(|(what, e)| format!("{what}: {e}"))?;
    let slots = (cpus * SLOTS_PER_CPU) as u32;
    let mut programs = EbpfLoader::new()
        .btf(Some(&types))
        .override_global("own_process", &std::process::id(), true)
        .override_global("page_shift", &page_bytes().trailing_zeros(), true)
        .map_max_entries("slots", slots)
        .map_max_entries("takens", slots)
        .map_max_entries("tallies", cpus as u32)
        .map_max_entries("events", ring_bytes)
        .load(&object)
        .map_err(|e| why(&e))?;
    let (report, attached) = attach(&mut programs, &types, tier, &uring);
    let loaded = maps(programs, attached, tier)?;
    Ok((loaded, report))
}

fn page_bytes() -> u32 {
    // SAFETY: asks for a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(bytes).unwrap_or(4096)
}

fn attach(programs: &mut Ebpf, types: &Btf, tier: Tier, uring: &Wanted) -> (Report, Programs) {
    let (mut report, mut attached) = (Report { tier, ..Report::default() }, Programs::new());
    let mut tell = |wanted: &Wanted, result: Result<(String, OwnedFd), String>| {
        let (hook, state) = match result {
            Ok((hook, program)) => {
                attached.add(&hook, program);
                (hook, ProbeState::Loaded)
            }
            Err(why) => (hook_name(wanted.ways[0].1), ProbeState::Refused { why }),
        };
        report.probes.push(Probe { hook, state, without: wanted.without.into() });
    };
    match tier {
        Tier::Full => {
            tell(&SYS_EXIT, attach_best(programs, &SYS_EXIT, types));
            tell(uring, attach_best(programs, uring, types));
        }
        Tier::Light => {
            // Which files are roots is asked through the probe at sys_exit, so it has to load here too.
            let asker = load_one(programs, "sys_exit", SYS_EXIT.ways[0].1, types);
            tell(&PAGES, asker.and_then(|()| attach_best(programs, &PAGES, types)));
        }
    }
    for wanted in COMMON {
        tell(wanted, attach_best(programs, wanted, types));
    }
    (report, attached)
}

fn hook_name(hook: Hook) -> String {
    match hook {
        Hook::Tracepoint(name) => name.to_owned(),
        Hook::Function(name) => format!("{name} (function)"),
    }
}

/// The name of the hook that took a program, and the program; or why each refused.
fn attach_best(programs: &mut Ebpf, wanted: &Wanted, types: &Btf) -> Result<(String, OwnedFd), String> {
    let mut refusals = Vec::new();
    for (program, hook) in wanted.ways {
        match load_one(programs, program, *hook, types).and_then(|()| attach_one(programs, program, *hook)) {
            Ok(program) => return Ok((hook_name(*hook), program)),
            Err(why) => refusals.push(format!("{}: {why}", hook_name(*hook))),
        }
    }
    Err(refusals.join("; "))
}

fn load_one(programs: &mut Ebpf, name: &str, hook: Hook, types: &Btf) -> Result<(), String> {
    match hook {
        Hook::Tracepoint(at) => tracepoint(programs, name)?.load(at, types).map_err(|e| why(&e)),
        Hook::Function(at) => function(programs, name)?.load(at, types).map_err(|e| why(&e)),
    }
}

fn attach_one(programs: &mut Ebpf, name: &str, hook: Hook) -> Result<OwnedFd, String> {
    let fd = match hook {
        Hook::Tracepoint(_) => {
            let program = tracepoint(programs, name)?;
            program.attach().map_err(|e| why(&e))?;
            program.fd()
        }
        Hook::Function(_) => {
            let program = function(programs, name)?;
            program.attach().map_err(|e| why(&e))?;
            program.fd()
        }
    };
    fd.map_err(|e| why(&e))?.as_fd().try_clone_to_owned().map_err(|e| why(&e))
}

fn tracepoint<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, String> {
    let program = programs.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|e: aya::programs::ProgramError| why(&e))
}

fn function<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut FEntry, String> {
    let program = programs.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|e: aya::programs::ProgramError| why(&e))
}

fn maps(mut programs: Ebpf, attached: Programs, tier: Tier) -> Result<Loaded, String> {
    let mut take = |name: &str| programs.take_map(name).ok_or_else(|| format!("the object has no map {name}"));
    let ring = RingBuf::try_from(take("events")?).map_err(|e| why(&e))?;
    let (slots, takens, tallies) = (share(take("slots")?)?, share(take("takens")?)?, share(take("tallies")?)?);
    let (announced, identities) = (share(take("announced")?)?, share(take("identities")?)?);
    let control = share(take("controls")?)?;
    let roots = take("roots")?.try_into().map_err(|e| why(&e))?;
    let skipped = take("skipped")?.try_into().map_err(|e| why(&e))?;
    let attached = Arc::new(attached);
    Ok(Loaded {
        ring,
        slots,
        takens,
        tallies,
        announced,
        identities,
        control,
        roots,
        skipped,
        programs,
        attached,
        tier,
    })
}

/// Maps an array; the mapping keeps the kernel's map alive.
fn share<T: Plain>(map: Map) -> Result<Shared<T>, String> {
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
