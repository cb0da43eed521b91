//! How many requests there were, how they ended, and how long they took.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Code;

use super::text::Page;

/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Clients choose the names: so many different ones are told apart.
const NAMES: usize = 128;

static ALL: Mutex<BTreeMap<String, Method>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Method {
    open: u64,
    /// By code.
    ended: BTreeMap<i32, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
}

/// A request that is open.
#[derive(Debug)]
pub(crate) struct Open(String);

impl Open {
    /// Counts a request for `method`.
    pub(crate) fn new(method: &str) -> Self {
        let mut all = all();
        let name = if all.len() < NAMES || all.contains_key(method) {
            method
        } else {
            "other"
        };
        all.entry(name.to_owned()).or_default().open += 1;
        Self(name.to_owned())
    }

    /// Counts its end.
    pub(crate) fn end(&self, code: Code, took: Duration) {
        let mut all = all();
        let Some(method) = all.get_mut(&self.0) else {
            return;
        };
        *method.ended.entry(i32::from(code)).or_default() += 1;
        let seconds = took.as_secs_f64();
        method.seconds += seconds;
        for (bucket, end) in method.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= end);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(method) = all().get_mut(&self.0) {
            method.open = method.open.saturating_sub(1);
        }
    }
}

fn all() -> MutexGuard<'static, BTreeMap<String, Method>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write(page: &mut Page) {
    let all = all();
    let name = "davit_cri_requests_in_flight";
    page.head(
        name,
        "gauge",
        "Requests without an answer yet; of PullImage: pulls.",
    );
    for (method, of) in all.iter() {
        page.line(name, &[("method", method)], of.open);
    }
    let name = "davit_cri_requests_total";
    page.head(name, "counter", "Requests by method and gRPC code.");
    for (method, of) in all.iter() {
        for (code, count) in &of.ended {
            let code = format!("{:?}", Code::from(*code));
            page.line(name, &[("method", method), ("code", &code)], count);
        }
    }
    let name = "davit_cri_request_seconds";
    page.head(name, "histogram", "How long requests took.");
    for (method, of) in all.iter() {
        let count: u64 = of.ended.values().sum();
        for (bucket, end) in of.buckets.iter().zip(BUCKETS) {
            let labels = [("method", &**method), ("le", &end.to_string())];
            page.line("davit_cri_request_seconds_bucket", &labels, bucket);
        }
        let labels = [("method", &**method), ("le", "+Inf")];
        page.line("davit_cri_request_seconds_bucket", &labels, count);
        let labels = [("method", &**method)];
        page.line("davit_cri_request_seconds_sum", &labels, of.seconds);
        page.line("davit_cri_request_seconds_count", &labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_in_its_bucket_and_all_above() {
        let open = Open::new("TestOnly");
        open.end(Code::NotFound, Duration::from_millis(20));
        drop(open);
        let still = Open::new("TestOnly");
        let mut page = Page::default();
        write(&mut page);
        for line in [
            "davit_cri_requests_in_flight{method=\"TestOnly\"} 1",
            "davit_cri_requests_total{method=\"TestOnly\",code=\"NotFound\"} 1",
            "davit_cri_request_seconds_bucket{method=\"TestOnly\",le=\"0.01\"} 0",
            "davit_cri_request_seconds_bucket{method=\"TestOnly\",le=\"0.025\"} 1",
            "davit_cri_request_seconds_bucket{method=\"TestOnly\",le=\"+Inf\"} 1",
            "davit_cri_request_seconds_count{method=\"TestOnly\"} 1",
        ] {
            assert!(page.0.lines().any(|one| one == line), "{line}:\n{}", page.0);
        }
        drop(still);
    }
}
