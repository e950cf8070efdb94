// A file of its own, because the model in `tests/it/wish.rs` runs it with the atomics of loom.
use super::sync::{AtomicBool, Ordering};

/// A wish for work that many callers have and one of them passes on.
pub struct WishFlag(AtomicBool);

impl WishFlag {
    /// True for the one caller that has to pass the word on; the others' wish is part of it until
    /// [`WishFlag::served`].
    pub fn want(&self) -> bool {
        !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::AcqRel)
    }

    /// To be called once for each `true` of [`WishFlag::want`], also where the word could not be
    /// passed on.
    pub fn served(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Default for WishFlag {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}
