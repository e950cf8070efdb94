//! Slots for slow work. A caller that waits gets one in turn by source, so that no crowd from one
//! place keeps others out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

/// A caller that would have to wait longer is asked to retry.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Waiting at once, from all sources.
const WAITING: usize = 64;

pub struct FairQueue {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Each source with those that wait, in the order of their turns.
    turns: VecDeque<Turn>,
}

struct Turn {
    source: IpAddr,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// Leave to do slow work. Dropping it lets the next one in.
pub struct Slot(Option<Arc<FairQueue>>);

impl FairQueue {
    pub fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: slots, turns: VecDeque::new() }) })
    }

    /// `None`: too many wait, or it took too long.
    pub async fn slot(self: &Arc<Self>, source: IpAddr) -> Option<Slot> {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Some(Slot(Some(Arc::clone(self))));
            }
            state.join(source)?
        };
        tokio::time::timeout(LONGEST_WAIT, turn).await.ok()?.ok()
    }

    fn release(self: &Arc<Self>) {
        loop {
            let Some(next) = self.state().next_or_free() else { return };
            let Err(mut unwanted) = next.send(Slot(Some(Arc::clone(self)))) else { return };
            // Who waited has gone; the slot is for the one after.
            unwanted.0 = None;
        }
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.state().free
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn join(&mut self, source: IpAddr) -> Option<oneshot::Receiver<Slot>> {
        for turn in &mut self.turns {
            turn.waiting.retain(|waiting| !waiting.is_closed());
        }
        self.turns.retain(|turn| !turn.waiting.is_empty());
        let own = self.turns.iter().position(|turn| turn.source == source);
        let waiting = own.map_or(0, |at| self.turns[at].waiting.len());
        if self.turns.iter().map(|turn| turn.waiting.len()).sum::<usize>() >= WAITING {
            // The last one of the largest crowd makes room, if that is not our own.
            let largest = self.turns.iter_mut().max_by_key(|turn| turn.waiting.len())?;
            if largest.waiting.len() <= waiting + 1 {
                return None;
            }
            largest.waiting.pop_back();
        }
        let (sender, receiver) = oneshot::channel();
        match self.turns.iter_mut().find(|turn| turn.source == source) {
            Some(turn) => turn.waiting.push_back(sender),
            None => self.turns.push_back(Turn { source, waiting: [sender].into() }),
        }
        Some(receiver)
    }

    /// Who gets a slot that has become free. `None`: nobody waits, and it has been noted as free.
    fn next_or_free(&mut self) -> Option<oneshot::Sender<Slot>> {
        while let Some(mut turn) = self.turns.pop_front() {
            let next = turn.waiting.pop_front();
            if !turn.waiting.is_empty() {
                self.turns.push_back(turn);
            }
            if next.is_some() {
                return next;
            }
        }
        self.free += 1;
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    type Waiting = tokio::task::JoinHandle<Option<Slot>>;

    async fn wait(queue: &Arc<FairQueue>, from: u8) -> Waiting {
        let queue = Arc::clone(queue);
        let waiting = tokio::spawn(async move { queue.slot(source(from)).await });
        // On this one thread it runs until it waits.
        tokio::task::yield_now().await;
        waiting
    }

    #[tokio::test]
    async fn sources_take_turns_whatever_their_crowds() {
        let queue = FairQueue::new(1);
        let first = queue.slot(source(1)).await.unwrap();
        let crowd = [wait(&queue, 1).await, wait(&queue, 1).await, wait(&queue, 1).await];
        let other = wait(&queue, 2).await;
        drop(first);
        let [one, two, _three] = crowd;
        let slot = one.await.unwrap().unwrap();
        drop(slot);
        let slot = other.await.unwrap().unwrap();
        assert!(!two.is_finished());
        drop(slot);
        assert!(two.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_the_last_in_the_largest_crowd() {
        let queue = FairQueue::new(1);
        let busy = queue.slot(source(1)).await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..WAITING {
            crowd.push(wait(&queue, 1).await);
        }
        assert!(queue.slot(source(1)).await.is_none(), "no room for more of the same");
        let newcomer = wait(&queue, 2).await;
        assert!(crowd.pop().unwrap().await.unwrap().is_none());
        drop(busy);
        drop(crowd.remove(0).await.unwrap().unwrap());
        assert!(newcomer.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_or_waits_too_long_holds_no_slot() {
        let queue = FairQueue::new(1);
        let busy = queue.slot(source(1)).await.unwrap();
        let gone = wait(&queue, 1).await;
        gone.abort();
        assert!(queue.slot(source(2)).await.is_none(), "waited too long");
        drop(busy);
        let again = queue.slot(source(3)).await;
        assert!(again.is_some());
        drop(again);
        assert_eq!(queue.free(), 1);
    }
}
