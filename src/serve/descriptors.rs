//! File descriptors: as many as this process may have, and connections within that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For files, lookups, and whatever else is not a connection of a listener.
const RESERVED: usize = 128;
/// No loop over all descriptors, such as a library may do, should take long.
const ENOUGH: u64 = 1 << 20;
/// Below this a listener serves nobody.
const FEWEST: usize = 4;

/// Raises this process's soft limit as far as it may, and says what it is.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    let limit = match current {
        Some(current) if current < wanted => {
            let raised = Rlimit { current: Some(wanted), maximum };
            if setrlimit(Resource::Nofile, raised).is_ok() { wanted } else { current }
        }
        Some(current) => current,
        None => ENOUGH,
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Bounds that fit below `descriptors`, in the proportion of those that are wanted.
pub fn fit<const N: usize>(wanted: [usize; N], descriptors: usize) -> [usize; N] {
    let room = descriptors.saturating_sub(RESERVED.min(descriptors / 2));
    let total: usize = wanted.iter().sum();
    if total <= room {
        return wanted;
    }
    wanted.map(|bound| (bound * room / total).clamp(FEWEST.min(bound), bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_stay_as_they_are_where_they_fit_and_shrink_alike_where_not() {
        assert_eq!(fit([1024, 512, 64], 2000), [1024, 512, 64]);
        let shrunk = fit([1024, 512, 64], 256);
        assert_eq!(shrunk, [81, 40, 5]);
        assert!(shrunk.iter().sum::<usize>() + RESERVED <= 256);
        assert_eq!(fit([1024, 512, 2], 20), [6, 4, 2]);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(limit as u64));
        assert_eq!(raise_limit(), limit);
    }
}
