//! What waits to be written on one connection, and in which order it goes.
//!
//! Three lanes, one for each priority, and a last one for bytes without meaning: the writer always takes from the first
//! that is not empty, and asks again after at most 256 KiB, so that is what a demand waits for. Each lane has its own room
//! in bytes: an answer takes room before it reads from disk, so memory is bounded and background answers cannot take a
//! demand's.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foretide_flow::{BitsPerSecond, Priority};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::answer::Urgency;
use crate::frame::{DATA_BYTES, Frame, FrameWriter, Kind};
use crate::limit::Limiter;

/// Room of a lane, KiB: answers read this far ahead of the socket; four data frames keep it busy.
const LANE_ROOM_KIB: usize = 4 * DATA_BYTES / 1024;
/// Background is held back while a demand is being written on another connection, but no longer than this: that
/// connection could be the one that is stuck.
const MAX_YIELD: Duration = Duration::from_millis(100);

/// What all connections from one site share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) limiter: Limiter,
    demands: AtomicUsize,
    calm: Notify,
}

impl Link {
    pub(super) fn new(rate: Option<BitsPerSecond>) -> Self {
        Self { limiter: Limiter::new(rate), demands: AtomicUsize::new(0), calm: Notify::new() }
    }

    fn may_background_go(&self) -> bool {
        self.demands.load(Ordering::Relaxed) == 0
    }
}

/// A demand that is not written yet, on any of the link's connections.
#[derive(Debug)]
struct Demand(Arc<Link>);

impl Demand {
    fn new(link: &Arc<Link>) -> Self {
        link.demands.fetch_add(1, Ordering::Relaxed);
        Self(link.clone())
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        if self.0.demands.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.calm.notify_waiters();
        }
    }
}

/// A frame with what it holds until it is written or given up.
#[derive(Debug)]
struct Waiting {
    frame: Frame,
    room: Option<OwnedSemaphorePermit>,
    _demand: Option<Demand>,
}

type Lanes = [VecDeque<Waiting>; 4];

/// Bytes without meaning open a new connection's window only where nothing else would.
const PAD_LANE: usize = 3;

fn lane_of(frame: &Frame) -> usize {
    if frame.kind == Kind::Pad { PAD_LANE } else { frame.priority as usize }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}

/// What a frame of so many bytes takes along of the room for several.
pub(super) fn part_of(room: &mut OwnedSemaphorePermit, bytes: usize) -> Option<OwnedSemaphorePermit> {
    room.split(kib(bytes).min(room.num_permits()))
}

#[derive(Debug)]
pub(super) struct OutQueue {
    lanes: Mutex<Lanes>,
    rooms: [Arc<Semaphore>; 4],
    ready: Notify,
    link: Arc<Link>,
}

impl OutQueue {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            lanes: Mutex::default(),
            rooms: std::array::from_fn(|_| Arc::new(Semaphore::new(LANE_ROOM_KIB))),
            ready: Notify::new(),
            link,
        }
    }

    /// Waits for room for so many bytes in a lane. A frame longer than the lane waits until it is empty.
    pub(super) async fn room(&self, priority: Priority, bytes: usize) -> OwnedSemaphorePermit {
        self.room_in(priority as usize, bytes).await
    }

    /// The same for bytes without meaning.
    pub(super) async fn room_for_pad(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.room_in(PAD_LANE, bytes).await
    }

    async fn room_in(&self, lane: usize, bytes: usize) -> OwnedSemaphorePermit {
        let kib = kib(bytes).min(LANE_ROOM_KIB) as u32;
        self.rooms[lane].clone().acquire_many_owned(kib).await.expect("rooms are never closed")
    }

    /// Whether half of a lane's room is taken: the link takes less than could be sent.
    pub(super) fn is_filling(&self, priority: Priority) -> bool {
        self.rooms[priority as usize].available_permits() < LANE_ROOM_KIB / 2
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, lanes: &mut Lanes, frame: Frame, room: Option<OwnedSemaphorePermit>) {
        let demand = (frame.priority == Priority::Demand).then(|| Demand::new(&self.link));
        lanes[lane_of(&frame)].push_back(Waiting { frame, room, _demand: demand });
        self.ready.notify_one();
    }

    /// A frame in the lane of its own priority.
    pub(super) fn push(&self, frame: Frame, room: Option<OwnedSemaphorePermit>) {
        self.put(&mut self.lanes(), frame, room);
    }

    /// A frame of an answer, in the lane of its request's urgency. That is looked at under the lock under which
    /// [`OutQueue::raise`] changes it, so the frames of one answer stay in their order.
    pub(super) fn push_of(&self, urgency: &Urgency, frame: Frame, room: Option<OwnedSemaphorePermit>) {
        let mut lanes = self.lanes();
        self.put(&mut lanes, frame.with_priority(urgency.now()), room);
    }

    /// Somebody waits for this answer now: what of it waits here goes with the demands, and so does what is to come.
    pub(super) fn raise(&self, request: u32, urgency: Option<&Urgency>) {
        let mut lanes = self.lanes();
        if let Some(urgency) = urgency {
            urgency.raise();
        }
        for lane in 1..PAD_LANE {
            let (raised, others) =
                std::mem::take(&mut lanes[lane]).into_iter().partition(|w| w.frame.request == request);
            lanes[lane] = others;
            let raised: VecDeque<Waiting> = raised;
            for waiting in raised {
                self.put(&mut lanes, waiting.frame.with_priority(Priority::Demand), waiting.room);
            }
        }
    }

    /// Priority and length of what goes next: a frame and those behind it that are short enough to go with it.
    fn next(&self) -> Option<(Priority, usize)> {
        let lanes = self.lanes();
        let lane = lanes.iter().find(|l| !l.is_empty())?;
        let upto = |sum: &mut usize, w: &Waiting| {
            *sum += w.frame.length();
            Some(*sum)
        };
        let bytes = lane.iter().scan(0, upto).take_while(|sum| *sum <= DATA_BYTES).last();
        lane.front().map(|w| (w.frame.priority, bytes.unwrap_or(w.frame.length())))
    }

    fn pop(&self, lanes: Range<usize>) -> Option<Waiting> {
        let mut queue = self.lanes();
        lanes.into_iter().find_map(|l| queue[l].pop_front())
    }

    /// At least one frame that can wait, if there is one, and more of its lane up to so many bytes.
    fn pop_up_to(&self, bytes: usize) -> Vec<Waiting> {
        let mut lanes = self.lanes();
        let Some(lane) = lanes[1..].iter_mut().find(|l| !l.is_empty()) else { return Vec::new() };
        let mut left = bytes;
        let mut popped = Vec::new();
        while let Some(next) = lane.pop_front_if(|w| popped.is_empty() || w.frame.length() <= left) {
            left = left.saturating_sub(next.frame.length());
            popped.push(next);
        }
        popped
    }

    /// Writes until the connection fails.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(&self, mut stream: FrameWriter<W>) -> std::io::Result<()> {
        loop {
            match self.next() {
                None => {
                    stream.flush().await?;
                    self.ready.notified().await;
                }
                Some((Priority::Demand, _)) => self.write_demands(&mut stream).await?,
                Some((_, bytes)) => {
                    // It stays in its lane meanwhile: it may be raised, and must not be overtaken by what comes after it.
                    self.let_pass(&mut stream, bytes).await?;
                    for waiting in self.pop_up_to(bytes) {
                        stream.write(&waiting.frame).await?;
                    }
                }
            }
        }
    }

    /// What somebody waits for does not wait for more to be written with it.
    async fn write_demands<W: AsyncWrite + Unpin>(&self, stream: &mut FrameWriter<W>) -> std::io::Result<()> {
        while let Some(demand) = self.pop(0..1) {
            self.link.limiter.take(demand.frame.length(), Instant::now().into_std());
            stream.write(&demand.frame).await?;
            if self.lanes()[0].is_empty() {
                stream.flush().await?;
            }
        }
        Ok(())
    }

    /// Waits until frames that can wait may go, writing demands that come meanwhile.
    async fn let_pass<W: AsyncWrite + Unpin>(&self, stream: &mut FrameWriter<W>, bytes: usize) -> std::io::Result<()> {
        let now = Instant::now();
        let not_before = Instant::from_std(self.link.limiter.take(bytes, now.into_std()));
        let at_last = not_before.max(now + MAX_YIELD);
        loop {
            self.write_demands(stream).await?;
            let now = Instant::now();
            let calm = self.link.calm.notified();
            if now >= at_last || (now >= not_before && self.link.may_background_go()) {
                return Ok(());
            }
            stream.flush().await?;
            let until = if now < not_before { not_before } else { at_last };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.ready.notified() => {}
                () = calm, if now >= not_before => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use tokio::io::AsyncReadExt;

    fn frame(priority: Priority, request: u32) -> Frame {
        Frame::new(Kind::Data, request, vec![0; 1000]).with_priority(priority)
    }

    #[tokio::test]
    async fn promise_g_a_demand_goes_before_everything_that_waits() {
        let queue = OutQueue::new(Arc::new(Link::new(None)));
        for (priority, n) in [(Priority::Background, 3), (Priority::Deadline, 2), (Priority::Demand, 1)] {
            queue.push(frame(priority, n), None);
        }
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let writer = async move {
            let _ = queue.write_to(FrameWriter::new(theirs)).await;
        };
        let reader = async move {
            let mut order = Vec::new();
            for _ in 0..3 {
                let mut bytes = vec![0; 1020];
                ours.read_exact(&mut bytes).await.unwrap();
                order.push(bytes[4]);
            }
            order
        };
        tokio::select! {
            () = writer => unreachable!("it writes until it fails"),
            order = reader => assert_eq!(order, [1, 2, 3]),
        }
    }

    #[tokio::test]
    async fn bytes_without_meaning_go_last_and_short_frames_together() {
        let queue = OutQueue::new(Arc::new(Link::new(None)));
        queue.push(Frame { kind: Kind::Pad, ..frame(Priority::Background, 1) }, None);
        (2..5).for_each(|n| queue.push(frame(Priority::Background, n), None));
        queue.push(Frame::new(Kind::Data, 5, vec![0; DATA_BYTES]).with_priority(Priority::Background), None);
        let requests = |batch: Vec<Waiting>| batch.iter().map(|w| w.frame.request).collect::<Vec<_>>();
        let (_, bytes) = queue.next().unwrap();
        assert_eq!(bytes, 3 * 1020);
        assert_eq!(requests(queue.pop_up_to(bytes)), [2, 3, 4]);
        let (_, bytes) = queue.next().unwrap();
        assert_eq!(requests(queue.pop_up_to(bytes)), [5]);
        assert_eq!(requests(queue.pop_up_to(0)), [1], "one at least");
        assert!(queue.next().is_none());
    }

    /// Found by the demo: the manifest waited behind prefetch while the chunks that came after it, raised meanwhile, went
    /// ahead; and an answer's end went ahead of its chunks.
    #[tokio::test]
    async fn an_answer_that_is_raised_keeps_its_order_and_goes_first() {
        let queue = OutQueue::new(Arc::new(Link::new(None)));
        let urgency = Urgency::new(Priority::Background);
        let part = |kind| Frame::new(kind, 7, vec![0; 1000]);
        queue.push(frame(Priority::Background, 3), None);
        queue.push_of(&urgency, part(Kind::Head), None);
        queue.push_of(&urgency, part(Kind::Data), None);
        queue.raise(7, Some(&urgency));
        queue.push_of(&urgency, part(Kind::End), None);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(0..3)).map(|w| (w.frame.request, w.frame.kind)).collect();
        assert_eq!(order, [(7, Kind::Head), (7, Kind::Data), (7, Kind::End), (3, Kind::Data)]);
    }

    #[tokio::test]
    async fn background_has_no_room_left_and_a_demand_still_has() {
        let queue = OutQueue::new(Arc::new(Link::new(None)));
        let _all = queue.room(Priority::Background, LANE_ROOM_KIB * 1024).await;
        let more = tokio::time::timeout(Duration::from_millis(10), queue.room(Priority::Background, 1)).await;
        assert!(more.is_err());
        drop(queue.room(Priority::Demand, LANE_ROOM_KIB * 1024).await);
    }
}
