//! What pods and containers use.

use std::sync::Arc;

use super::{Engine, resolve};
use crate::error::{Error, Result};
use crate::images::blocking;
use crate::model::{ContainerStats, PodMetrics, PodStats, StatsFilter};
use crate::pod::{Entry, Pod, View};
use crate::record::PodRecord;
use crate::stats;

impl Engine {
    /// A container's statistics, by id or the unique beginning of one. One that does not run has only its layer's.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let (id, pod) = self.container(id)?;
        let record = match pod.view().containers.get(&id) {
            Some(Entry::Known(record)) => Arc::clone(record),
            _ => return Err(Error::ContainerNotFound { id }),
        };
        let node = Arc::clone(&self.node);
        blocking(move || Ok(stats::container(&node, &pod, &record))).await
    }

    /// The statistics of the containers that run and match.
    ///
    /// # Errors
    /// None of its own.
    pub async fn list_container_stats(&self, filter: StatsFilter) -> Result<Vec<ContainerStats>> {
        let find_container = |id: &str| Ok(self.node.find_container(id)?.map(|(id, _)| id));
        let (Ok(only), Ok(only_pod)) = (
            resolve(filter.id.as_deref(), find_container),
            resolve(filter.pod_id.as_deref(), |id| self.find_pod_id(id)),
        ) else {
            return Ok(Vec::new());
        };
        let node = Arc::clone(&self.node);
        blocking(move || {
            let mut all = Vec::new();
            for pod in node.pods() {
                if only_pod.as_ref().is_some_and(|only| *only != pod.id) {
                    continue;
                }
                let view = pod.view();
                let wanted = stats::running(&view).filter(|record| {
                    only.as_ref().is_none_or(|only| *only == record.id)
                        && matches(&filter, &record.config.labels)
                });
                all.extend(wanted.map(|record| stats::container(&node, &pod, record)));
            }
            Ok(all)
        })
        .await
    }

    /// A pod's statistics, by id or the unique beginning of one. One that is not ready has none but who it is.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub async fn pod_stats(&self, id: &str) -> Result<PodStats> {
        let pod = self.pod(id)?;
        let (view, record) = known(&pod).ok_or_else(|| Error::PodNotFound { id: id.to_owned() })?;
        let node = Arc::clone(&self.node);
        blocking(move || Ok(stats::pod(&node, &pod, &view, &record))).await
    }

    /// The statistics of the pods that are ready and match.
    ///
    /// # Errors
    /// None of its own.
    pub async fn list_pod_stats(&self, filter: StatsFilter) -> Result<Vec<PodStats>> {
        let Ok(only) = resolve(filter.id.as_deref(), |id| self.find_pod_id(id)) else {
            return Ok(Vec::new());
        };
        self.each_ready_pod(move |node, pod, view, record| {
            let wanted = only.as_ref().is_none_or(|only| *only == pod.id)
                && matches(&filter, &record.config.labels);
            wanted.then(|| stats::pod(node, pod, view, record))
        })
        .await
    }

    /// Everything that is counted of the pods that are ready.
    ///
    /// # Errors
    /// None of its own.
    pub async fn list_pod_metrics(&self) -> Result<Vec<PodMetrics>> {
        self.each_ready_pod(|node, pod, view, record| {
            Some(stats::pod_metrics(node, pod, view, record))
        })
        .await
    }

    async fn each_ready_pod<T: Send + 'static>(
        &self,
        read: impl Fn(&Arc<crate::node::Node>, &Arc<Pod>, &View, &PodRecord) -> Option<T>
        + Send
        + 'static,
    ) -> Result<Vec<T>> {
        let node = Arc::clone(&self.node);
        blocking(move || {
            let mut all = Vec::new();
            for pod in node.pods() {
                if let Some((view, record)) = known(&pod)
                    && view.not_ready.is_none()
                {
                    all.extend(read(&node, &pod, &view, &record));
                }
            }
            Ok(all)
        })
        .await
    }

    fn find_pod_id(&self, id: &str) -> Result<Option<String>> {
        Ok(self.node.find_pod(id)?.map(|pod| pod.id.clone()))
    }
}

/// A pod whose record loads.
fn known(pod: &Pod) -> Option<(Arc<View>, Arc<PodRecord>)> {
    let view = pod.view();
    let record = Arc::clone(view.record.as_ref().ok()?);
    Some((view, record))
}

fn matches(filter: &StatsFilter, labels: &std::collections::BTreeMap<String, String>) -> bool {
    filter
        .labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
