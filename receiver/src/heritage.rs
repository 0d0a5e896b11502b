//! What one instance of a component leaves to the next, which a reload puts in its place.
//!
//! The one that runs says beforehand what it will leave, so that the next one need not make that again. It is
//! handed over when the one has ended, and before the other runs.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Shared by all instances with one id.
#[derive(Clone, Default)]
pub struct Heritage(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    will: Option<Arc<dyn Any + Send + Sync>>,
    left: Option<Box<dyn Any + Send>>,
}

impl Heritage {
    /// Says what will be left. To be said before the component runs, for the next one may be started at any time
    /// from then on.
    pub fn promise<T: Any + Send + Sync>(&self, will: T) {
        self.contents().will = Some(Arc::new(will));
    }

    /// What the one that runs will leave, if it has said so.
    pub fn promised<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.contents().will.clone()?.downcast().ok()
    }

    /// Leaves it.
    pub fn leave<T: Any + Send>(&self, what: T) {
        self.contents().left = Some(Box::new(what));
    }

    /// Takes what was left. Nothing is, if the one before failed or was given up.
    pub fn take<T: Any + Send>(&self) -> Option<Box<T>> {
        let left = self.contents().left.take()?;
        left.downcast().ok()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once_and_as_what_it_is() {
        let heritage = Heritage::default();
        assert!(heritage.promised::<u32>().is_none() && heritage.take::<u32>().is_none());
        heritage.promise(7_u32);
        assert_eq!(heritage.promised::<u32>().as_deref(), Some(&7));
        assert!(heritage.promised::<u64>().is_none());
        heritage.leave("much".to_owned());
        assert_eq!(heritage.clone().take::<String>().as_deref().map(String::as_str), Some("much"));
        assert!(heritage.take::<String>().is_none());
    }
}
