//! `foretide trace`: record what reads what on this machine, and look at recordings. A recording is a folder of access
//! batches as Parquet, the same as an agent sends.

use std::fs;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use foretide_collector::probe::Tier;
use foretide_collector::trace::Summariser;
use foretide_collector::{Collector, Config, WatchedVolume, parquet};
use foretide_flow::{Access, AccessBatch, NodeId, SiteId, VolumeId};
use foretide_model::features::files_of_lake;

use super::{RunError, import};

/// Longest wait for a batch while the command runs.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// After the command has ended, batches are taken until none came for this long.
const QUIET_AT_END: Duration = Duration::from_secs(1);

/// Options of `foretide trace`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Record reads below a folder, until the command ends or Ctrl-C. Needs root.
    Record {
        /// Folder whose files are watched.
        #[arg(long)]
        root: PathBuf,
        /// Folder that the recording is written to; made if it is not there.
        #[arg(long)]
        out: PathBuf,
        /// How reads are seen: full (every way of reading, exact bytes) or light (pages; costs less).
        #[arg(long, default_value_t)]
        tier: Tier,
        /// The command to run meanwhile.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print again and again who reads what and how much it waited, until Ctrl-C. Needs root.
    Top {
        /// Folder whose files are watched.
        #[arg(long)]
        root: PathBuf,
        /// Seconds between two prints.
        #[arg(long, default_value_t = 2.0)]
        interval_s: f64,
        /// How reads are seen: full or light.
        #[arg(long, default_value_t)]
        tier: Tier,
    },
    /// Print every access of a recording.
    Show {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// As JSON, one batch a line.
        #[arg(long)]
        json: bool,
    },
    /// Write the accesses of recordings for other tools.
    Export {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// One access a line: comma-separated values with a header, or JSON objects.
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
        /// File to write; standard output if not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Turn traces that others recorded into a recording. The format is told by the content.
    Import(import::Options),
    /// Print which files each run read, those first that it waited for most.
    Files {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// Files to print.
        #[arg(long, default_value_t = 50)]
        most: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print who read what and how much it waited.
    Stats {
        /// Files or folders of recordings.
        #[arg(required = true)]
        recordings: Vec<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs it.
///
/// # Errors
/// A kernel that refuses its probes, a folder that cannot be used, a recording that is damaged.
pub async fn run(options: Options) -> Result<(), RunError> {
    match options.what {
        What::Record { root, out, tier, command } => record(root, out, tier, command).await,
        What::Top { root, interval_s, tier } => top(root, interval_s, tier).await,
        What::Export { recordings, format, out } => export(&recordings, format, out.as_deref()),
        What::Show { recordings, json } => {
            for batch in read_all(&recordings)? {
                show(&batch, json)?;
            }
            Ok(())
        }
        What::Import(options) => import::run(&options),
        What::Files { recordings, most, json } => files(&recordings, most, json),
        What::Stats { recordings, json } => {
            let mut summariser = Summariser::default();
            read_all(&recordings)?.iter().for_each(|batch| summariser.add(batch));
            let summary = summariser.summary();
            if json {
                print_json(&summary)
            } else {
                print!("{summary}");
                Ok(())
            }
        }
    }
}

/// The formats that a recording is exported in.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// Observes one folder of this machine.
fn observe(root: &Path, spool: PathBuf, tier: Tier) -> Result<Collector, RunError> {
    let root = fs::canonicalize(root).map_err(|e| RunError::Told(format!("{}: {e}", root.display())))?;
    let name = |e: foretide_flow::IdError| RunError::Told(e.to_string());
    let config =
        Config { tier, ..Config::new(NodeId::new("local").map_err(name)?, SiteId::new("local").map_err(name)?, spool) };
    let volume = VolumeId::new("local").map_err(name)?;
    let (collector, report) = Collector::start(config, vec![WatchedVolume { volume, root }])?;
    eprint!("{report}");
    Ok(collector)
}

async fn record(root: PathBuf, out: PathBuf, tier: Tier, command: Vec<String>) -> Result<(), RunError> {
    fs::create_dir_all(&out)?;
    let collector = observe(&root, out.join("spool"), tier)?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let writer = tokio::task::spawn_blocking(move || write_batches(&collector, &out, &end));
    let waited = match command.split_first() {
        None => {
            super::until_signal().await;
            Ok(())
        }
        Some((program, arguments)) => match tokio::process::Command::new(program).args(arguments).status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(RunError::Told(format!("{program}: {status}; what it read is recorded"))),
            Err(e) => Err(RunError::Told(format!("{program}: {e}"))),
        },
    };
    ended.store(true, Ordering::Relaxed);
    let summary = writer.await.map_err(std::io::Error::other)??;
    print!("{}", summary.summary());
    waited
}

async fn top(root: PathBuf, interval_s: f64, tier: Tier) -> Result<(), RunError> {
    let interval = Duration::try_from_secs_f64(interval_s.max(0.1))
        .map_err(|e| RunError::Told(format!("--interval-s {interval_s}: {e}")))?;
    let spool = tempfile::tempdir()?;
    let collector = observe(&root, spool.path().to_owned(), tier)?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let printer = tokio::task::spawn_blocking(move || print_top(&collector, interval, &end));
    super::until_signal().await;
    ended.store(true, Ordering::Relaxed);
    printer.await.map_err(std::io::Error::other)?
}

fn print_top(collector: &Collector, interval: Duration, ended: &AtomicBool) -> Result<(), RunError> {
    let mut out = std::io::stdout();
    let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut summariser = Summariser::default();
    let mut due = Instant::now() + interval;
    while !ended.load(Ordering::Relaxed) {
        let wait = due.saturating_duration_since(Instant::now()).min(BATCH_WAIT);
        if let Some(batch) = collector.next_batch(wait)? {
            collector.acknowledge(batch.sequence())?;
            match batch.decode() {
                Ok(batch) => summariser.add(&batch),
                Err(error) => tracing::warn!(%error, "a batch is left out"),
            }
        }
        if Instant::now() >= due {
            due = Instant::now() + interval;
            write!(out, "{clear}in {:.1} s\n{}", interval.as_secs_f64(), summariser.summary())?;
            out.flush()?;
            summariser.begin_interval();
        }
    }
    Ok(())
}

fn export(recordings: &[PathBuf], format: Format, to: Option<&Path>) -> Result<(), RunError> {
    let mut out: Box<dyn Write> = match to {
        Some(path) => {
            let file = fs::File::create(path).map_err(|e| RunError::Told(format!("{}: {e}", path.display())))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
    };
    if matches!(format, Format::Csv) {
        writeln!(out, "{CSV_HEADER}")?;
    }
    for access in read_all(recordings)?.iter().flat_map(|batch| &batch.accesses) {
        match format {
            Format::Csv => writeln!(out, "{}", csv(access))?,
            Format::Jsonl => writeln!(out, "{}", serde_json::to_string(access).map_err(std::io::Error::other)?)?,
        }
    }
    Ok(out.flush()?)
}

const CSV_HEADER: &str = "at_s,run,process,volume,path,op,offset,length,blocked_us,found";

/// One line. Names that are not UTF-8 are written as `FilePath` prints them.
fn csv(a: &Access) -> String {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let (run, path) = (quoted(a.run.as_str()), quoted(&a.path.to_string()));
    let (op, found) = (format!("{:?}", a.op).to_lowercase(), format!("{:?}", a.found).to_lowercase());
    let at = format!("{}.{:06}", a.at.0.div_euclid(1_000_000), a.at.0.rem_euclid(1_000_000));
    format!("{at},{run},{},{},{path},{op},{},{},{},{found}", a.process, a.volume, a.offset, a.length, a.blocked_us)
}

/// Writes each batch as a file until it has ended and nothing more comes.
fn write_batches(collector: &Collector, out: &Path, ended: &AtomicBool) -> Result<Summariser, RunError> {
    let mut summariser = Summariser::default();
    loop {
        let wait = if ended.load(Ordering::Relaxed) { QUIET_AT_END } else { BATCH_WAIT };
        match collector.next_batch(wait)? {
            Some(batch) => {
                fs::write(out.join(format!("{:012}.parquet", batch.sequence())), batch.bytes())?;
                collector.acknowledge(batch.sequence())?;
                summariser.add(&batch.decode().map_err(|e| RunError::Told(e.to_string()))?);
            }
            None if wait == QUIET_AT_END => return Ok(summariser),
            None => {}
        }
    }
}

/// The table of files, grouped while the recordings are read: they may be larger than the memory.
fn files(recordings: &[PathBuf], most: usize, json: bool) -> Result<(), RunError> {
    let mut rows = files_of_lake(&files_in(recordings)?).map_err(|e| RunError::Told(e.to_string()))?;
    rows.sort_by(|a, b| b.blocked_us.cmp(&a.blocked_us).then(b.bytes.cmp(&a.bytes)));
    rows.truncate(most);
    if json {
        return print_json(&rows);
    }
    println!("{:>9} {:>12} {:>6} {:>9}  {:<24} file", "waited s", "bytes", "opens", "processes", "run");
    for r in &rows {
        let waited_s = r.blocked_us as f64 / 1e6;
        let (run, file) = (r.run.as_str(), format!("{}:{}", r.key.volume, r.key.path));
        println!("{waited_s:>9.3} {:>12} {:>6} {:>9}  {run:<24} {file}", r.bytes, r.opens, r.processes);
    }
    Ok(())
}

/// All batches of files and folders, in order of name.
///
/// # Errors
/// A file that cannot be read, or is no recording.
pub fn read_all(recordings: &[PathBuf]) -> Result<Vec<AccessBatch>, RunError> {
    let named = |path: &Path, e: &dyn std::fmt::Display| RunError::Told(format!("{}: {e}", path.display()));
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(|e| named(path, &e))?;
        parquet::decode(&bytes).map_err(|e| named(path, &e))
    };
    files_in(recordings)?.iter().map(read).collect()
}

/// The files of recordings, in order of name.
fn files_in(recordings: &[PathBuf]) -> Result<Vec<PathBuf>, RunError> {
    let mut files = Vec::new();
    for path in recordings {
        if path.is_dir() {
            let inside = fs::read_dir(path)?.filter_map(|e| e.ok().map(|e| e.path()));
            files.extend(inside.filter(|p| p.extension().is_some_and(|e| e == "parquet")));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    Ok(files)
}

fn show(batch: &AccessBatch, json: bool) -> Result<(), RunError> {
    if json {
        println!("{}", serde_json::to_string(batch).map_err(std::io::Error::other)?);
        return Ok(());
    }
    for a in &batch.accesses {
        let op = format!("{:?}", a.op).to_lowercase();
        println!(
            "{:.6} {} {:>7} {op:<6} {}:{} {}+{}",
            a.at.as_secs_f64(),
            a.run,
            a.process,
            a.volume,
            a.path,
            a.offset,
            a.length
        );
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), RunError> {
    println!("{}", serde_json::to_string_pretty(value).map_err(std::io::Error::other)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{AccessOp, FilePath, Found, Timestamp};

    #[test]
    fn a_line_of_csv_has_its_commas_and_quotes_escaped() {
        let access = Access {
            at: Timestamp(1_500_007),
            run: "r".into(),
            process: 7,
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse("a, \"b\"").unwrap(),
            op: AccessOp::Read,
            offset: 4096,
            length: 10,
            blocked_us: 3,
            found: Found::Miss,
        };
        assert_eq!(csv(&access), "1.500007,r,7,v,\"a, \"\"b\"\"\",read,4096,10,3,miss");
        assert_eq!(CSV_HEADER.split(',').count(), 10);
    }
}
