//! What waits to be written on one connection, and in which order it goes.
//!
//! Three lanes, one for each priority: the writer always takes from the first that is not empty, and asks again
//! between any two frames, so a demand waits for one frame at most. Each lane has its own room in bytes: an answer
//! takes room before it reads from disk, so memory is bounded and background answers cannot take a demand's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foretide_flow::{BitsPerSecond, Priority};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::answer::Urgency;
use crate::frame::{DATA_BYTES, Frame, FrameWriter};
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

#[derive(Debug)]
pub(super) struct OutQueue {
    lanes: Mutex<[VecDeque<Waiting>; 3]>,
    rooms: [Arc<Semaphore>; 3],
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
        let kib = bytes.div_ceil(1024).clamp(1, LANE_ROOM_KIB) as u32;
        let room = self.rooms[priority as usize].clone();
        room.acquire_many_owned(kib).await.expect("rooms are never closed")
    }

    /// Whether half of a lane's room is taken: the link takes less than could be sent.
    pub(super) fn is_filling(&self, priority: Priority) -> bool {
        self.rooms[priority as usize].available_permits() < LANE_ROOM_KIB / 2
    }

    fn lanes(&self) -> MutexGuard<'_, [VecDeque<Waiting>; 3]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, lanes: &mut [VecDeque<Waiting>; 3], frame: Frame, room: Option<OwnedSemaphorePermit>) {
        let demand = (frame.priority == Priority::Demand).then(|| Demand::new(&self.link));
        lanes[frame.priority as usize].push_back(Waiting { frame, room, _demand: demand });
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
        for lane in 1..lanes.len() {
            let (raised, others) =
                std::mem::take(&mut lanes[lane]).into_iter().partition(|w| w.frame.request == request);
            lanes[lane] = others;
            let raised: VecDeque<Waiting> = raised;
            for waiting in raised {
                self.put(&mut lanes, waiting.frame.with_priority(Priority::Demand), waiting.room);
            }
        }
    }

    /// Priority and length of the frame that is next.
    fn next(&self) -> Option<(Priority, usize)> {
        let lanes = self.lanes();
        lanes.iter().find_map(|l| l.front()).map(|w| (w.frame.priority, w.frame.length()))
    }

    fn pop(&self, lanes: std::ops::Range<usize>) -> Option<Waiting> {
        let mut queue = self.lanes();
        lanes.into_iter().find_map(|l| queue[l].pop_front())
    }

    /// Writes until the connection fails.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(&self, mut stream: FrameWriter<W>) -> std::io::Result<()> {
        loop {
            let Some((priority, bytes)) = self.next() else {
                stream.flush().await?;
                self.ready.notified().await;
                continue;
            };
            if priority == Priority::Demand {
                while let Some(demand) = self.pop(0..1) {
                    self.write_demand(&mut stream, demand).await?;
                }
                continue;
            }
            // It stays in its lane meanwhile: it may be raised, and must not be overtaken by what comes after it.
            self.let_pass(&mut stream, bytes).await?;
            if let Some(waiting) = self.pop(1..3) {
                stream.write(&waiting.frame).await?;
            }
        }
    }

    async fn write_demand<W: AsyncWrite + Unpin>(
        &self,
        stream: &mut FrameWriter<W>,
        waiting: Waiting,
    ) -> std::io::Result<()> {
        self.link.limiter.take(waiting.frame.length(), Instant::now());
        stream.write(&waiting.frame).await
    }

    /// Waits until a frame that can wait may go, writing demands that come meanwhile.
    async fn let_pass<W: AsyncWrite + Unpin>(&self, stream: &mut FrameWriter<W>, bytes: usize) -> std::io::Result<()> {
        let now = Instant::now();
        let not_before = self.link.limiter.take(bytes, now);
        let at_last = not_before.max(now + MAX_YIELD);
        loop {
            while let Some(demand) = self.pop(0..1) {
                self.write_demand(stream, demand).await?;
            }
            let now = Instant::now();
            let calm = self.link.calm.notified();
            if now >= at_last || (now >= not_before && self.link.may_background_go()) {
                return Ok(());
            }
            let until = if now < not_before { not_before } else { at_last };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
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
