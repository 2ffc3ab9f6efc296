//! The traces of the LIRS paper: one block number a line, no times. A line `*` parts programs and is left out.

use super::build::{Blocks, of_blocks};
use super::source::{Source, head_lines};
use super::{Format, PAGE_BYTES, Trace};
use crate::error::ModelError;

pub(super) fn is(head: &[u8]) -> bool {
    let Some(lines) = head_lines(head) else { return false };
    let mut whole = lines.iter().take(50).map(|l| l.trim()).filter(|l| *l != "*").peekable();
    whole.peek().is_some() && whole.all(|l| l.parse::<u64>().is_ok())
}

pub(super) fn read(source: &mut Source, block_bytes: Option<u64>) -> Result<Trace, ModelError> {
    let mut blocks = Vec::new();
    let mut left_out = 0;
    while let Some(line) = source.text()? {
        match line.trim() {
            "" | "*" => left_out += 1,
            number => match number.parse() {
                Ok(first) => blocks.push(Blocks { first, count: 1 }),
                Err(_) => return Err(source.error("one block number is wanted")),
            },
        }
    }
    let trace = of_blocks(source, Format::Lirs, &blocks, block_bytes.unwrap_or(PAGE_BYTES));
    Ok(Trace { left_out, ..trace })
}
