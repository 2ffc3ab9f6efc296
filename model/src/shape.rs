//! Path shapes: what stays the same when a job comes back on new data.
//!
//! A path is cut into fixed text and *slots*. A slot is a date (`2026-10-01`, `20261001`), a hash (16 or more
//! hexadecimal digits of both kinds) or a run of digits. Its place in the shape is written `#`, so
//! `sales/dt=2026-10-01/part-00003.parquet` has the shape `sales/dt=#/part-#.parquet` and the slots day 20727
//! and number 3. Two paths of one shape differ in their slots only, so a job's habit can be put as a statement
//! on slots: "the newest day, and the seven before".

/// A variable part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A run of digits, as a number. Numbers of more than 18 digits are taken modulo 10^18.
    Number(i64),
    /// A calendar day, counted from 1970-01-01.
    Day(i64),
    /// Hexadecimal digits, hashed: equal or not, no order.
    Hash(i64),
}

impl Slot {
    /// A value by which slots of one place can be ordered; none for hashes.
    pub fn value(self) -> Option<i64> {
        match self {
            Self::Number(n) | Self::Day(n) => Some(n),
            Self::Hash(_) => None,
        }
    }
}

/// A path, cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// The path with `#` for each slot.
    pub text: String,
    /// The slots, from left to right.
    pub slots: Vec<Slot>,
}

/// Cuts a path, or any other text, into shape and slots.
pub fn shape(path: &[u8]) -> Shape {
    let mut text = Vec::with_capacity(path.len());
    let mut slots = Vec::new();
    let mut i = 0;
    while i < path.len() {
        let (slot, length) = slot_at(path, i);
        match slot {
            Some(slot) => {
                text.push(b'#');
                slots.push(slot);
                i += length;
            }
            None => {
                text.push(path[i]);
                i += 1;
            }
        }
    }
    Shape { text: String::from_utf8_lossy(&text).into_owned(), slots }
}

/// The slot that begins at `i`, and its bytes.
fn slot_at(path: &[u8], i: usize) -> (Option<Slot>, usize) {
    let starts_word = i == 0 || !path[i - 1].is_ascii_alphanumeric();
    if starts_word && let Some(length) = hash_at(&path[i..]) {
        return (Some(Slot::Hash(fold(&path[i..i + length]))), length);
    }
    if !path[i].is_ascii_digit() {
        return (None, 0);
    }
    if let Some((day, length)) = date_at(&path[i..]) {
        return (Some(Slot::Day(day)), length);
    }
    let length = path[i..].iter().take_while(|b| b.is_ascii_digit()).count();
    (Some(Slot::Number(number(&path[i..i + length]))), length)
}

fn number(digits: &[u8]) -> i64 {
    digits.iter().fold(0i64, |n, d| (n % 100_000_000_000_000_000) * 10 + i64::from(d - b'0'))
}

fn fold(bytes: &[u8]) -> i64 {
    let digest = blake3::hash(bytes);
    i64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or_default())
}

fn hash_at(text: &[u8]) -> Option<usize> {
    const LEAST_DIGITS: usize = 16;
    let length = text.iter().take_while(|b| b.is_ascii_hexdigit() || **b == b'-').count();
    let word = &text[..length];
    let ends = !text.get(length).is_some_and(|b| b.is_ascii_alphanumeric());
    let letters = word.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let digits = word.iter().filter(|b| b.is_ascii_digit()).count();
    (ends && letters > 0 && digits > 0 && letters + digits >= LEAST_DIGITS).then_some(length)
}

fn date_at(text: &[u8]) -> Option<(i64, usize)> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let dashed = digits == 4 && matches!(text.get(4), Some(b'-' | b'_'));
    if dashed {
        let part = |from: usize, to: usize| text.get(from..to).filter(|p| p.iter().all(u8::is_ascii_digit)).map(number);
        let ends = !text.get(10).is_some_and(u8::is_ascii_digit) && text.get(7) == text.get(4);
        return if ends { days(number(&text[..4]), part(5, 7)?, part(8, 10)?).map(|d| (d, 10)) } else { None };
    }
    if digits == 8 {
        return days(number(&text[..4]), number(&text[4..6]), number(&text[6..8])).map(|d| (d, 8));
    }
    None
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, if there is such a day between 1970 and 2199.
pub fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1970..2200).contains(&year) || !(1..=12).contains(&month) || !(1..=length[month as usize - 1]).contains(&day) {
        return None;
    }
    let leaps = |y: i64| y / 4 - y / 100 + y / 400;
    let before: i64 = length[..month as usize - 1].iter().sum();
    Some((year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_numbers_and_hashes_become_slots() {
        let s = shape(b"sales/dt=2026-10-01/part-00003.parquet");
        assert_eq!(s.text, "sales/dt=#/part-#.parquet");
        assert_eq!(s.slots, [Slot::Day(20727), Slot::Number(3)]);
        assert_eq!(shape(b"log/20261001.gz").slots, [Slot::Day(20727)]);
        assert_eq!(shape(b"x/20269901.gz").slots, [Slot::Number(20_269_901)]);
        let hash = shape(b"o/9f86d081884c7d659a2feaa0c55ad015/w");
        assert_eq!((hash.text.as_str(), hash.slots.len()), ("o/#/w", 1));
        assert!(hash.slots[0].value().is_none());
        assert_eq!(shape(b"fastq/S0412_R1.fastq").text, "fastq/S#_R#.fastq");
    }

    #[test]
    fn days_agree_with_known_days() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2100, 3, 1), Some(47_541));
        assert_eq!(days(2100, 2, 29), None);
    }

    proptest::proptest! {
        #[test]
        fn a_shape_has_one_mark_for_each_slot_and_no_digits(path in "[a-z0-9/=._-]{0,60}") {
            let s = shape(path.as_bytes());
            proptest::prop_assert_eq!(s.text.matches('#').count(), s.slots.len());
            proptest::prop_assert!(!s.text.bytes().any(|b| b.is_ascii_digit()));
        }
    }
}
