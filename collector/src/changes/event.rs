//! What fanotify writes -> what happened in which directory. Pure.
//!
//! An event is its metadata and one record: the file system, a handle of the directory, and a name in it. Handles are
//! compared and given back to the kernel, never looked into.

use super::What;

/// Of the kernel's `struct fanotify_event_metadata`: length, version and such, mask, two descriptors.
const METADATA_BYTES: usize = 24;
/// Of a record before its handle: type and length, then the file system's number.
const RECORD_BYTES: usize = 12;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something happened to a name in a directory.
    Named {
        /// Number of the file system.
        fsid: u64,
        /// The directory, as `open_by_handle_at` takes it: length, type, bytes.
        handle: Vec<u8>,
        /// In the directory.
        name: Vec<u8>,
        /// What; none if it was both made and taken away, in an order that the kernel does not keep.
        what: Option<What>,
        /// Whether it is a directory itself.
        is_directory: bool,
    },
    /// The kernel's queue was full: events are missing.
    Overflow,
}

/// All events that lie whole in `bytes`.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(length) = u32_at(bytes, 0).map(|l| l as usize)
        && length >= METADATA_BYTES
        && let Some(event) = bytes.get(..length)
    {
        events.extend(one(event));
        bytes = &bytes[length..];
    }
    events
}

fn one(event: &[u8]) -> Option<Event> {
    let mask = u64::from_ne_bytes(event.get(8..16)?.try_into().ok()?);
    if mask & libc::FAN_Q_OVERFLOW != 0 {
        return Some(Event::Overflow);
    }
    let records = event.get(usize::from(u16::from_ne_bytes(event.get(6..8)?.try_into().ok()?))..)?;
    if *records.first()? != libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
        return None;
    }
    let record = records.get(..usize::from(u16::from_ne_bytes(records.get(2..4)?.try_into().ok()?)))?;
    let fsid = u64::from_ne_bytes(record.get(4..RECORD_BYTES)?.try_into().ok()?);
    let rest = record.get(RECORD_BYTES..)?;
    let handle_bytes = 8 + u32_at(rest, 0)? as usize;
    let name = rest.get(handle_bytes..)?.split(|b| *b == 0).next()?;
    Some(Event::Named {
        fsid,
        handle: rest.get(..handle_bytes)?.to_vec(),
        name: name.to_vec(),
        what: what(mask),
        is_directory: mask & libc::FAN_ONDIR != 0,
    })
}

/// The kernel joins what happened to one name: that it is there, or gone, says more than that it was written.
fn what(mask: u64) -> Option<What> {
    let gone = mask & (libc::FAN_DELETE | libc::FAN_MOVED_FROM) != 0;
    let appeared = mask & (libc::FAN_CREATE | libc::FAN_MOVED_TO) != 0;
    match (gone, appeared) {
        (true, true) => None,
        (true, false) => Some(What::Gone),
        (false, true) => Some(What::Appeared),
        (false, false) => Some(What::Written),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(mask: u64, kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 0, 0, 0];
        record.extend(7u64.to_ne_bytes());
        record.extend((handle.len() as u32).to_ne_bytes());
        record.extend(1u32.to_ne_bytes());
        record.extend(handle);
        record.extend(name);
        record.resize(record.len().next_multiple_of(4) + 4, 0);
        let length = record.len() as u16;
        record[2..4].copy_from_slice(&length.to_ne_bytes());
        let mut event = (24 + u32::from(length)).to_ne_bytes().to_vec();
        event.extend([3, 0]);
        event.extend(24u16.to_ne_bytes());
        event.extend(mask.to_ne_bytes());
        event.extend([0xff; 8]);
        event.extend(record);
        event
    }

    #[test]
    fn names_and_handles_are_found_and_foreign_records_left_out() {
        let mut bytes = event(libc::FAN_MOVED_TO | libc::FAN_ONDIR, 2, &[9, 8, 7], b"a name");
        bytes.extend(event(libc::FAN_CLOSE_WRITE, 1, &[1], b"x"));
        bytes.extend(event(libc::FAN_CLOSE_WRITE, 2, &[1], b"y\xff"));
        let mut overflow = event(libc::FAN_Q_OVERFLOW, 2, &[], b"");
        overflow.truncate(24);
        overflow[..4].copy_from_slice(&24u32.to_ne_bytes());
        bytes.extend(overflow);
        let events = parse(&bytes);
        let handle = [&3u32.to_ne_bytes()[..], &1u32.to_ne_bytes(), &[9, 8, 7]].concat();
        let moved =
            Event::Named { fsid: 7, handle, name: b"a name".to_vec(), what: Some(What::Appeared), is_directory: true };
        assert_eq!(events.len(), 3);
        assert_eq!(events[0], moved);
        assert!(matches!(&events[1], Event::Named { name, what: Some(What::Written), .. } if name == b"y\xff"));
        assert_eq!(events[2], Event::Overflow);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..80) {
            parse(&bytes);
            let whole = event(libc::FAN_CREATE, 2, &bytes[..bytes.len().min(20)], b"n");
            parse(&whole[..cut.min(whole.len())]);
        }
    }
}
