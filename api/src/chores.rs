//! What is done without being asked: webhooks get their events, and warm-ups whose hard end has passed are over.

use std::time::Duration;

use foretide_catalog::{Topic, WarmupFilter, WarmupUpdate};
use foretide_flow::{Timestamp, WarmupState};

use crate::Api;
use crate::error::ApiError;
use crate::eta::as_of;
use crate::events::{Told, tell};
use crate::webhooks::deliver_due;

/// A receiver that was down is tried again within this long of its time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Warm-ups are looked through this often: a status shows their end at once, plans may learn of it a little later.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// Warm-ups read at a time.
const WARMUPS_AT_ONCE: usize = 1000;

/// Does the chores until the server stops. What fails is logged and tried again.
pub async fn keep_house(api: Api) {
    let mut stop = api.stop.clone();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = keep_delivering(&api) => {}
        () = keep_expiring(&api) => {}
    }
}

async fn keep_delivering(api: &Api) {
    let mut news = api.catalog.changes(Topic::Events);
    loop {
        news.mark_unchanged();
        match deliver_due(&api.hooks, api.catalog.as_ref(), api.courier.as_ref(), Timestamp::now()).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "webhooks could not be looked after"),
        }
        // Whichever comes first: a change, or the time of who waits.
        let _ = tokio::time::timeout(LOOK_EVERY, news.changed()).await;
        tokio::time::sleep(LOOK_EVERY / 10).await;
    }
}

async fn keep_expiring(api: &Api) {
    loop {
        if let Err(error) = expire(api, Timestamp::now()).await {
            tracing::error!(%error, "warm-ups past their end could not be written down");
        }
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}

/// Writes down which warm-ups are past their end.
async fn expire(api: &Api, now: Timestamp) -> Result<(), ApiError> {
    use WarmupState::{Degraded, Moving, Partial, Planned, Queued, Ready};
    let filter = WarmupFilter { site: None, states: vec![Queued, Planned, Moving, Partial, Ready, Degraded] };
    let mut cursor = None;
    loop {
        let page = api.catalog.warmups(&filter, cursor, WARMUPS_AT_ONCE).await?;
        for warmup in page.items {
            if as_of(warmup.clone(), now).state.is_over() {
                let update = WarmupUpdate { state: Some(WarmupState::Expired), ..WarmupUpdate::default() };
                let expired = api.catalog.update_warmup(&warmup.id, &update, now).await?;
                tell(api.catalog.as_ref(), &Told::Warmup(expired.into()), now).await?;
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}
