//! Every order in which the steps of concurrent callers can happen, of what `GrantCell` builds on.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

mod sync {
    pub use loom::sync::atomic::{AtomicBool, Ordering};
}

#[path = "../../src/domain/wish.rs"]
mod model;

use self::model::WishFlag;
use self::sync::Ordering;

#[test]
fn of_callers_at_the_same_time_one_passes_the_word_on() {
    loom::model(|| {
        let (wish, under_way) = (Arc::new(WishFlag::default()), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (wish, under_way) = (Arc::clone(&wish), Arc::clone(&under_way));
                thread::spawn(move || {
                    let first = wish.want();
                    if first {
                        let others = under_way.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(others, 0, "the same work is under way twice");
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        wish.served();
                    }
                    first
                })
            })
            .collect();
        let passed_on = callers.into_iter().map(|caller| caller.join().unwrap());
        assert!(passed_on.filter(|first| *first).count() >= 1, "nobody passed the word on");
    });
}
