//! One execution of a workflow as WfFormat JSON (schema 1.4 and 1.5).
//!
//! It tells no start times and no single reads: a task is taken to start when the last of its parents has ended, to
//! read each of its inputs whole at its start, and to make its outputs at its end.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::build::Build;
use super::source::Source;
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;

/// A WfFormat document, as far as it is used here.
#[derive(Deserialize)]
pub(crate) struct Document {
    #[serde(default)]
    name: String,
    pub(crate) workflow: Workflow,
}

#[derive(Deserialize)]
pub(crate) struct Workflow {
    pub(crate) specification: Specification,
    #[serde(default)]
    execution: Execution,
}

/// What depends on what, and which files there are.
#[derive(Deserialize)]
pub(crate) struct Specification {
    pub(crate) tasks: Vec<Task>,
    pub(crate) files: Vec<File>,
}

/// A task, with the names of what it reads and makes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    pub(crate) id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    pub(crate) input_files: Vec<String>,
    #[serde(default)]
    pub(crate) output_files: Vec<String>,
}

/// A file; its size in bytes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct File {
    pub(crate) id: String,
    pub(crate) size_in_bytes: u64,
}

#[derive(Default, Deserialize)]
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
    let tasks = specification.in_order().ok_or_else(|| source.error_at_start(CIRCLE))?;
    let mut ends: HashMap<&str, f64> = HashMap::new();
    for (process, task) in tasks.into_iter().enumerate() {
        let stream = build.stream(&document.name, &document.name, process as u32);
        let start_s =
            task.parents.iter().filter_map(|p| ends.get(p.as_str())).fold(0.0f64, |latest, end| latest.max(*end));
        let end_s = start_s + runtime.get(task.id.as_str()).copied().unwrap_or(0.0).max(0.0);
        ends.insert(&task.id, end_s);
        let (start, end) = (start_s * 1e6, end_s * 1e6);
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

/// Said of tasks without an order.
pub(crate) const CIRCLE: &str = "its tasks wait for each other in a circle";

impl Specification {
    /// The tasks in an order in which they can run, each after its parents; none if there is no such order.
    pub(crate) fn in_order(&self) -> Option<Vec<&Task>> {
        let tasks = &self.tasks;
        let place: HashMap<&str, usize> = tasks.iter().enumerate().map(|(i, t)| (t.id.as_str(), i)).collect();
        let mut waits: Vec<usize> = Vec::with_capacity(tasks.len());
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
        for (i, task) in tasks.iter().enumerate() {
            let parents: Vec<usize> = task.parents.iter().filter_map(|p| place.get(p.as_str()).copied()).collect();
            waits.push(parents.len());
            for p in parents {
                children[p].push(i);
            }
        }
        let mut ready: VecDeque<usize> = (0..tasks.len()).filter(|i| waits[*i] == 0).collect();
        let mut out = Vec::with_capacity(tasks.len());
        while let Some(i) = ready.pop_front() {
            out.push(&tasks[i]);
            for child in std::mem::take(&mut children[i]) {
                waits[child] -= 1;
                if waits[child] == 0 {
                    ready.push_back(child);
                }
            }
        }
        (out.len() == tasks.len()).then_some(out)
    }
}
