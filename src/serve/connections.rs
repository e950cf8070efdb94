//! How many connections a listener keeps open, and which of them makes room for a new one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::telemetry::Metrics;

/// How often a newcomer looks again for a connection that has gone quiet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Nobody goes sooner: what a peer has sent may not have been read yet, or its answer not have
/// left.
const GRACE: Duration = Duration::from_millis(50);

/// How long a connection may keep others waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the peer begins; without a word by then the connection is closed.
    pub to_begin: Duration,
    /// A peer that is in the middle of a request does not count as idle before it has been quiet
    /// for so long.
    pub in_request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { to_begin: Duration::from_secs(10), in_request: Duration::from_secs(2) }
    }
}

/// The open connections of one listener.
pub struct Connections {
    /// The listener's name in the config.
    pub listener: &'static str,
    /// Connections at once.
    pub limit: usize,
    /// How long a peer may keep one waiting.
    pub patience: Patience,
    started: Instant,
    table: Mutex<Table>,
    /// A place may have become free, or a connection idle.
    room: Notify,
    open: IntGauge,
    evicted: IntCounter,
    silent: IntCounter,
    no_handshake: IntCounter,
    /// Handlers that panicked.
    pub panics: IntCounter,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
}

#[derive(Default)]
struct Connection {
    /// Milliseconds after the listener's start: when the peer last sent anything.
    heard: AtomicU64,
    /// The peer has sent something that is not answered yet.
    begun: AtomicBool,
    /// A request has been made on it.
    asked: AtomicBool,
    /// Requests that wait for us, not for their sender.
    under_way: AtomicU32,
    task: OnceLock<AbortHandle>,
}

impl Connections {
    /// Counts from zero.
    pub fn new(
        listener: &'static str,
        limit: usize,
        patience: Patience,
        metrics: &Metrics,
    ) -> Arc<Self> {
        metrics.connections_limit.with_label_values(&[listener]).set(limit as i64);
        let closed = |reason| metrics.connections_closed.with_label_values(&[listener, reason]);
        Arc::new(Self {
            listener,
            limit,
            patience,
            started: Instant::now(),
            table: Mutex::default(),
            room: Notify::new(),
            open: metrics.connections.with_label_values(&[listener]),
            evicted: closed("evicted"),
            silent: closed("silent"),
            no_handshake: closed("tls"),
            panics: metrics.panics.with_label_values(&[listener]),
        })
    }

    /// Connections now.
    pub fn open(&self) -> usize {
        self.table().open.len()
    }

    /// A place for a new connection. At the bound the connection that is missed least is ended;
    /// only where all have requests under way this waits.
    pub async fn place(self: &Arc<Self>) -> Place {
        loop {
            let room = self.room.notified();
            if let Some(place) = self.try_place() {
                return place;
            }
            let _ = timeout(LOOK_AGAIN, room).await;
        }
    }

    fn try_place(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        if table.open.len() >= self.limit {
            let id = table.least_missed(self.now(), millis(self.patience.in_request))?;
            let connection = table.open.remove(&id)?;
            if let Some(task) = connection.task.get() {
                task.abort();
            }
            self.evicted.inc();
        }
        let id = table.next;
        table.next += 1;
        let connection = Arc::new(Connection::default());
        connection.heard.store(self.now(), Ordering::Relaxed);
        table.open.insert(id, Arc::clone(&connection));
        self.open.set(table.open.len() as i64);
        Some(Place { id, connection, connections: Arc::clone(self) })
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Table {
    /// Of those with nothing under way: first one that never asked for anything, then the one that
    /// has been quiet longest.
    fn least_missed(&self, now: u64, patience: u64) -> Option<u64> {
        let idle = self.open.iter().filter(|(_, connection)| {
            let quiet = now.saturating_sub(connection.heard.load(Ordering::Relaxed));
            let begun = connection.begun.load(Ordering::Relaxed);
            let enough = if begun { patience } else { millis(GRACE) };
            quiet >= enough && connection.under_way.load(Ordering::Acquire) == 0
        });
        let missed = |connection: &Connection| {
            let asked = connection.asked.load(Ordering::Relaxed);
            (asked, connection.heard.load(Ordering::Relaxed))
        };
        idle.min_by_key(|(id, connection)| (missed(connection), **id)).map(|(id, _)| *id)
    }
}

/// An open connection's place. Dropping it makes room.
pub struct Place {
    id: u64,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Place {
    /// The task to end when this place is needed.
    pub fn belongs_to(&self, task: AbortHandle) {
        // Set once: a place is given to one connection.
        let _ = self.connection.task.set(task);
    }

    /// The peer has sent something.
    pub fn heard(&self) {
        self.connection.heard.store(self.connections.now(), Ordering::Relaxed);
        self.connection.begun.store(true, Ordering::Relaxed);
    }

    pub fn has_asked(&self) -> bool {
        self.connection.asked.load(Ordering::Relaxed)
    }

    /// A request has arrived.
    pub fn asked(&self) {
        // Mostly it is known, and a read is cheaper.
        if !self.has_asked() {
            self.connection.asked.store(true, Ordering::Relaxed);
        }
    }

    pub fn patience(&self) -> Patience {
        self.connections.patience
    }

    pub fn closed_for_silence(&self) {
        self.connections.silent.inc();
    }

    pub fn closed_without_handshake(&self) {
        self.connections.no_handshake.inc();
    }

    fn begin(&self) {
        self.connection.under_way.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        if self.connection.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.connections.room.notify_one();
        }
    }

    /// Everything that was asked for has been answered.
    fn answered(&self) {
        if self.connection.under_way.load(Ordering::Acquire) == 0 {
            self.connection.begun.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        // Nothing is there where it was taken for another connection.
        if table.open.remove(&self.id).is_some() {
            self.connections.open.set(table.open.len() as i64);
            drop(table);
            self.connections.room.notify_one();
        }
    }
}

/// A request under way. While its sender keeps it waiting, the connection counts as idle.
pub struct UnderWay {
    place: Arc<Place>,
    counted: AtomicBool,
}

impl UnderWay {
    pub fn begin(place: Arc<Place>) -> Arc<Self> {
        place.asked();
        place.begin();
        Arc::new(Self { place, counted: AtomicBool::new(true) })
    }

    pub fn waits_for_its_sender(&self) {
        if self.counted.swap(false, Ordering::AcqRel) {
            self.place.end();
        }
    }

    pub fn goes_on(&self) {
        if !self.counted.swap(true, Ordering::AcqRel) {
            self.place.begin();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.waits_for_its_sender();
        self.place.answered();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn connections(limit: usize) -> Arc<Connections> {
        let patience = Patience { in_request: Duration::from_millis(300), ..Patience::default() };
        Connections::new("test", limit, patience, &Metrics::new())
    }

    type Task = tokio::task::JoinHandle<()>;

    /// A connection that lives until it is evicted.
    async fn connect(connections: &Arc<Connections>) -> (Arc<Place>, Task) {
        let place = Arc::new(connections.place().await);
        let task = tokio::spawn(std::future::pending());
        place.belongs_to(task.abort_handle());
        tokio::time::sleep(Duration::from_millis(2)).await;
        (place, task)
    }

    async fn is_ended(task: Task) -> bool {
        timeout(Duration::from_secs(5), task).await.is_ok_and(|ended| ended.is_err())
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_never_asked_makes_room_first_then_the_quietest() {
        let connections = connections(3);
        let (asked, first) = connect(&connections).await;
        asked.asked();
        let (_silent, second) = connect(&connections).await;
        let (_younger, third) = connect(&connections).await;
        let (fourth_place, fourth) = connect(&connections).await;
        assert!(is_ended(second).await && !first.is_finished() && !third.is_finished());
        fourth_place.asked();
        let (fifth_place, fifth) = connect(&connections).await;
        assert!(is_ended(third).await && !first.is_finished());
        fifth_place.asked();
        drop(UnderWay::begin(Arc::clone(&asked)));
        asked.heard();
        drop(UnderWay::begin(Arc::clone(&asked)));
        assert_eq!(connections.open(), 3);
        let (_sixth_place, _sixth) = connect(&connections).await;
        assert!(is_ended(fourth).await, "the others have sent something since");
        assert!(!first.is_finished() && !fifth.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_under_way_is_ended_and_a_request_that_waits_for_its_sender_is_none() {
        let connections = connections(1);
        let (place, task) = connect(&connections).await;
        let request = UnderWay::begin(Arc::clone(&place));
        assert!(timeout(SOON, connections.place()).await.is_err());
        request.waits_for_its_sender();
        request.goes_on();
        assert!(timeout(SOON, connections.place()).await.is_err());
        request.waits_for_its_sender();
        let _second = timeout(Duration::from_secs(5), connections.place()).await.unwrap();
        assert!(is_ended(task).await);
        drop((request, place));
        assert_eq!(connections.open(), 1, "the place was given away, not given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_newcomer_gets_the_place_of_the_first_that_is_done() {
        let connections = connections(1);
        let (place, _task) = connect(&connections).await;
        let request = UnderWay::begin(place);
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.place().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(request);
        timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_the_middle_of_a_request_has_a_moment() {
        let connections = connections(1);
        let (place, task) = connect(&connections).await;
        place.heard();
        assert!(timeout(SOON, connections.place()).await.is_err());
        let _second = timeout(Duration::from_secs(5), connections.place()).await.unwrap();
        assert!(is_ended(task).await);
    }
}
