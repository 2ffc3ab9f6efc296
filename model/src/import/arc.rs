//! The traces of the ARC paper: `first_block blocks ignored ignored` a line, no times.

use super::build::{Blocks, of_blocks};
use super::source::{Source, head_lines};
use super::{Format, PAGE_BYTES, SECTOR_BYTES, Trace};
use crate::error::ModelError;

pub(super) fn is(head: &[u8]) -> bool {
    let Some(lines) = head_lines(head) else { return false };
    let whole = &lines[..lines.len().saturating_sub(1).clamp(1, 50).min(lines.len())];
    !whole.is_empty() && whole.iter().all(|l| parse(l).is_some())
}

fn parse(line: &str) -> Option<Blocks> {
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (first, count) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let ignored = fields.next()?.is_ok() && fields.next()?.is_ok();
    (ignored && fields.next().is_none() && count > 0).then_some(Blocks { first, count })
}

pub(super) fn read(source: &mut Source, block_bytes: Option<u64>) -> Result<Trace, ModelError> {
    let mut blocks = Vec::new();
    while let Some(line) = source.text()? {
        if line.is_empty() {
            continue;
        }
        match parse(line) {
            Some(b) => blocks.push(b),
            None => return Err(source.error("four numbers are wanted: first block, blocks, and two that are ignored")),
        }
    }
    let single = blocks.iter().all(|b| b.count == 1);
    let bytes = block_bytes.unwrap_or(if single { PAGE_BYTES } else { SECTOR_BYTES });
    Ok(of_blocks(source, Format::Arc, &blocks, bytes))
}
