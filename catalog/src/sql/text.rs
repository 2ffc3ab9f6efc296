//! Statements and their arguments, the same for both engines: `$1`, `$2`, … and four kinds of value.

use std::fmt::Write as _;

use foretide_flow::{FilePath, Timestamp};

/// No single count is kept above 2^53 (nine petabytes): what a peer sends cannot make sums overflow, and JSON readers
/// that know only doubles still read it exactly.
const COUNT_MAX: u64 = 1 << 53;

/// A value for a column. Absent values keep their kind: PostgreSQL asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    Int(Option<i64>),
    Real(f64),
    Text(Option<&'a str>),
    Blob(Option<&'a [u8]>),
}

/// A count or size.
pub(super) fn count(n: u64) -> Arg<'static> {
    Arg::Int(Some(n.min(COUNT_MAX) as i64))
}

impl From<i64> for Arg<'_> {
    fn from(n: i64) -> Self {
        Self::Int(Some(n))
    }
}
impl From<Option<i64>> for Arg<'_> {
    fn from(n: Option<i64>) -> Self {
        Self::Int(n)
    }
}
impl From<Timestamp> for Arg<'_> {
    fn from(t: Timestamp) -> Self {
        Self::Int(Some(t.0))
    }
}
impl<'a> From<&'a str> for Arg<'a> {
    fn from(s: &'a str) -> Self {
        Self::Text(Some(s))
    }
}
impl<'a> From<&'a String> for Arg<'a> {
    fn from(s: &'a String) -> Self {
        Self::Text(Some(s))
    }
}
impl<'a> From<Option<&'a str>> for Arg<'a> {
    fn from(s: Option<&'a str>) -> Self {
        Self::Text(s)
    }
}
impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(b: &'a [u8]) -> Self {
        Self::Blob(Some(b))
    }
}
impl<'a> From<&'a Vec<u8>> for Arg<'a> {
    fn from(b: &'a Vec<u8>) -> Self {
        Self::Blob(Some(b))
    }
}
impl<'a> From<&'a FilePath> for Arg<'a> {
    fn from(p: &'a FilePath) -> Self {
        Self::Blob(Some(p.as_bytes()))
    }
}

/// Arguments of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::sql::text::Arg::from($value)),*] };
}
pub(super) use args;

/// A statement that is put together from fixed pieces; values only ever go in as arguments.
#[derive(Default)]
pub(super) struct Statement<'a> {
    pub(super) sql: String,
    pub(super) args: Vec<Arg<'a>>,
}

impl<'a> Statement<'a> {
    pub(super) fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), args: Vec::new() }
    }

    /// Adds a piece in which each `?` stands for the next of these values.
    pub(super) fn add(&mut self, piece: &str, values: &[Arg<'a>]) -> &mut Self {
        let mut values = values.iter();
        for part in piece.split_inclusive('?') {
            match (part.strip_suffix('?'), values.next()) {
                (Some(text), Some(value)) => {
                    self.args.push(*value);
                    self.sql.push_str(text);
                    self.sql.push('$');
                    self.sql.push_str(&self.args.len().to_string());
                }
                _ => self.sql.push_str(part),
            }
        }
        self
    }

    /// Adds `(?, …), (?, …)`: a group for each row of values, all of one length.
    pub(super) fn add_rows(&mut self, rows: &[Vec<Arg<'a>>]) -> &mut Self {
        self.args.reserve(rows.iter().map(Vec::len).sum());
        for (i, row) in rows.iter().enumerate() {
            self.sql.push_str(if i == 0 { "(" } else { ", (" });
            for (j, value) in row.iter().enumerate() {
                self.args.push(*value);
                let between = if j == 0 { "" } else { ", " };
                // Writing into a string does not fail.
                let _ = write!(self.sql, "{between}${}", self.args.len());
            }
            self.sql.push(')');
        }
        self
    }

    /// Adds a piece if there is a value for its `?`.
    pub(super) fn add_if(&mut self, piece: &str, value: Option<impl Into<Arg<'a>>>) -> &mut Self {
        match value {
            Some(value) => self.add(piece, &[value.into()]),
            None => self,
        }
    }

    /// Adds `column IN (…)`; nothing if there are no values.
    pub(super) fn add_in(&mut self, piece: &str, values: &[Arg<'a>]) -> &mut Self {
        if values.is_empty() {
            return self;
        }
        let marks = vec!["?"; values.len()].join(", ");
        self.add(&format!("{piece} IN ({marks})"), values)
    }
}

/// Bounds of a subtree in the order of bytes: `column >= low AND column < high AND (column = path OR column >
/// with_slash)`. Names that sort between the path and its `/`, such as `a-b` beside `a/b`, fall out by the last part.
pub(super) struct Subtree {
    path: FilePath,
    with_slash: Vec<u8>,
    high: Vec<u8>,
}

impl Subtree {
    pub(super) fn of(path: &FilePath) -> Self {
        let with = |last: u8| [path.as_bytes(), &[last]].concat();
        // '0' is the byte after '/'.
        Self { path: path.clone(), with_slash: with(b'/'), high: with(b'0') }
    }

    /// Adds the condition that `column` lies in the subtree.
    pub(super) fn add_to<'a>(&'a self, column: &str, statement: &mut Statement<'a>) {
        self.add_after_to(column, None, statement);
    }

    /// Adds the condition that `column` lies in the subtree and, in the order of bytes, after a path. With one lower
    /// bound: of two, SQLite takes either, and would walk from the subtree's beginning to where a page goes on.
    pub(super) fn add_after_to<'a>(&'a self, column: &str, after: Option<&'a FilePath>, statement: &mut Statement<'a>) {
        let after = after.filter(|after| **after >= self.path);
        match after {
            Some(after) => statement.add(&format!(" AND {column} > ?"), &[after.into()]),
            None if self.path.is_root() => return,
            None => statement.add(&format!(" AND {column} >= ?"), &[(&self.path).into()]),
        };
        if !self.path.is_root() {
            let piece = format!(" AND {column} < ? AND ({column} = ? OR {column} > ?)");
            statement.add(&piece, &[Arg::from(&self.high), Arg::from(&self.path), Arg::from(&self.with_slash)]);
        }
    }
}
