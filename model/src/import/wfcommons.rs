//! One execution of a workflow as WfFormat JSON (schema 1.4 and 1.5).
//!
//! It tells no start times and no single reads: a task is taken to start when the last of its parents has ended, to
//! read each of its inputs whole at its start, and to make its outputs at its end.

use std::collections::HashMap;

use serde::Deserialize;

use super::build::Build;
use super::source::Source;
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    name: String,
    workflow: Workflow,
}

#[derive(Deserialize)]
struct Workflow {
    specification: Specification,
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Task>,
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: String,
    size_in_bytes: u64,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: f64,
}

pub(super) fn is(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.trim_start().starts_with('{') && text.contains("\"schemaVersion\"") && text.contains("\"workflow\"")
}

pub(super) fn read(source: &mut Source) -> Result<Trace, ModelError> {
    let bytes = source.document()?;
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|e| source.error_at_start(&format!("is no WfFormat: {e}")))?;
    let mut build = Build::new(source, Format::WfCommons, true);
    let specification = &document.workflow.specification;
    for file in &specification.files {
        let number = build.file(file.id.as_bytes());
        build.size(number, file.size_in_bytes);
    }
    let runtime: HashMap<&str, f64> =
        document.workflow.execution.tasks.iter().map(|t| (t.id.as_str(), t.runtime_in_seconds)).collect();
    let sizes: HashMap<&str, u64> = specification.files.iter().map(|f| (f.id.as_str(), f.size_in_bytes)).collect();
    for (process, (task, start_s)) in starts(&specification.tasks, &runtime)
        .ok_or_else(|| source.error_at_start("its tasks wait for each other in a circle"))?
        .into_iter()
        .enumerate()
    {
        let stream = build.stream(&document.name, &document.name, process as u32);
        let (start, end) = (start_s * 1e6, (start_s + runtime.get(task.id.as_str()).copied().unwrap_or(0.0)) * 1e6);
        let mut push = |at: f64, name: &str, op, length| {
            let file = build.file(name.as_bytes());
            build.push(Request { at_us: at as i64, stream, file, op, offset: 0, length });
        };
        for name in &task.input_files {
            push(start, name, RequestOp::Open, 0);
            push(start, name, RequestOp::Read, sizes.get(name.as_str()).copied().unwrap_or(0));
        }
        for name in &task.output_files {
            push(end, name, RequestOp::Create, 0);
        }
    }
    Ok(build.done(Numbers::Addresses))
}

/// Tasks with their starts in seconds, parents first; none if there is no such order.
fn starts<'a>(tasks: &'a [Task], runtime: &HashMap<&str, f64>) -> Option<Vec<(&'a Task, f64)>> {
    let known: HashMap<&str, &Task> = tasks.iter().map(|t| (t.id.as_str(), t)).collect();
    let mut ends: HashMap<&str, f64> = HashMap::new();
    let mut out = Vec::with_capacity(tasks.len());
    let mut waiting: Vec<&Task> = tasks.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|task| {
            let mut parents = task.parents.iter().filter(|p| known.contains_key(p.as_str()));
            let start = parents.try_fold(0.0f64, |latest, p| Some(latest.max(*ends.get(p.as_str())?)));
            let Some(start) = start else { return true };
            ends.insert(&task.id, start + runtime.get(task.id.as_str()).copied().unwrap_or(0.0).max(0.0));
            out.push((*task, start));
            false
        });
        if waiting.len() == before {
            return None;
        }
    }
    Some(out)
}
