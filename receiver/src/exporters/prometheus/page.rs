//! The exposition as it is served: rendered at most once at a time, and shared by all scrapes that
//! were asked for before that began or come before the next change.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use opentelemetry::{KeyValue, metrics::Counter};
use tokio::{
    sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
};

use super::{format::Form, store::Store};

/// Renderings in memory at a time. Scrapers that do not read what they are sent hold theirs until
/// they are cut off; meanwhile the others share the last one.
pub(super) const RENDERINGS: usize = 8;

/// The store and its last renderings.
pub(super) struct Exposition {
    store: Mutex<Store>,
    /// Counts the changes of the store.
    version: AtomicU64,
    pages: [Mutex<Option<Arc<Page>>>; Form::COUNT],
    renderings: Arc<Semaphore>,
    hidden: Hidden,
    /// Whether any name is one that not every scraper knows.
    pub(super) utf8: bool,
    /// Whether OpenMetrics may be asked for.
    pub(super) openmetrics: bool,
}

/// Counts the series that a scraper is not shown.
pub(super) struct Hidden {
    pub(super) counter: Counter<u64>,
    pub(super) attributes: [KeyValue; 1],
}

/// One rendering.
struct Page {
    /// Of the store that it shows.
    version: u64,
    /// It shows all that had come by then.
    at: Instant,
    plain: Bytes,
    gzip: OnceCell<Bytes>,
    permit: Arc<OwnedSemaphorePermit>,
}

/// Memory that is counted until its last reader is done with it.
struct Counted(Vec<u8>, #[expect(dead_code, reason = "held, not used")] Arc<OwnedSemaphorePermit>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Exposition {
    pub(super) fn new(store: Store, openmetrics: bool, hidden: Hidden) -> Self {
        Self {
            utf8: !store.is_classic(),
            openmetrics,
            store: Mutex::new(store),
            version: AtomicU64::new(0),
            pages: Default::default(),
            renderings: Arc::new(Semaphore::new(RENDERINGS)),
            hidden,
        }
    }

    /// Changes the store.
    pub(super) async fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let changed = {
            let mut store = self.store.lock().await;
            let changed = change(&mut store);
            self.version.fetch_add(1, Ordering::Release);
            changed
        };
        // Memory that is not needed any more, unless it may be all that there is to show.
        if self.renderings.available_permits() > 0 {
            for page in &self.pages {
                // One that is being rendered is told apart by its version.
                if let Ok(mut page) = page.try_lock() {
                    *page = None;
                }
            }
        }
        changed
    }

    /// How many renderings there may be beside those that are held.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.renderings.available_permits()
    }

    /// The exposition in this form, as a scrape that comes now may see it.
    pub(super) async fn scrape(
        self: Arc<Self>,
        form: Form,
        gzip: bool,
    ) -> Result<Bytes, JoinError> {
        let asked = Instant::now();
        // On a task of its own: a scraper that hangs up does not waste what others wait for.
        tokio::spawn(async move {
            let page = self.page(form, asked).await?;
            if gzip { page.gzip().await } else { Ok(page.plain.clone()) }
        })
        .await?
    }

    async fn page(self: Arc<Self>, form: Form, asked: Instant) -> Result<Arc<Page>, JoinError> {
        let mut held = self.pages[form.number()].lock().await;
        let version = self.version.load(Ordering::Acquire);
        if let Some(page) = held.as_ref().filter(|p| p.at >= asked || p.version == version) {
            return Ok(Arc::clone(page));
        }
        let permit = match (Arc::clone(&self.renderings).try_acquire_owned(), held.as_ref()) {
            (Ok(permit), _) => permit,
            (Err(_), Some(stale)) => return Ok(Arc::clone(stale)),
            (Err(_), None) => {
                let permit = Arc::clone(&self.renderings).acquire_owned().await;
                permit.expect("never closed")
            }
        };
        let exposition = Arc::clone(&self);
        // Milliseconds of work: too long for the threads that serve others.
        let page = spawn_blocking(move || exposition.render(form, permit)).await?;
        let page = Arc::new(page);
        *held = Some(Arc::clone(&page));
        Ok(page)
    }

    fn render(&self, form: Form, permit: OwnedSemaphorePermit) -> Page {
        let store = self.store.blocking_lock();
        let (version, at) = (self.version.load(Ordering::Acquire), Instant::now());
        let rendered = form.render(&store);
        drop(store);
        if rendered.hidden > 0 {
            self.hidden.counter.add(rendered.hidden as u64, &self.hidden.attributes);
        }
        let permit = Arc::new(permit);
        let plain = Bytes::from_owner(Counted(rendered.bytes, Arc::clone(&permit)));
        Page { version, at, plain, gzip: OnceCell::new(), permit }
    }
}

impl Page {
    async fn gzip(&self) -> Result<Bytes, JoinError> {
        let compress = || {
            let (plain, permit) = (self.plain.clone(), Arc::clone(&self.permit));
            spawn_blocking(move || {
                // The fastest level: a scrape mostly stays in the machine or the rack.
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                let written = encoder.write_all(&plain).and_then(|()| encoder.finish());
                Bytes::from_owner(Counted(written.expect("a Vec grows"), permit))
            })
        };
        self.gzip.get_or_try_init(compress).await.cloned()
    }
}
