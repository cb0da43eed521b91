//! `davit.v1`'s Images service: pull and import with progress, for people at a terminal.

mod progress;

use std::path::PathBuf;

use engine::Engine;
use engine::model::{Image, ProgressSink};
use proto::davit::v1::images_server::Images;
use proto::davit::v1::{ImportRequest, Progress, PullRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::convert::{Invalid, filled, image};
use crate::node::Node;
use crate::status;

/// The service over a node's engine.
#[derive(Debug, Clone)]
pub(crate) struct DavitImages(pub(crate) Node);

type ProgressStream = ReceiverStream<Result<Progress, Status>>;

#[tonic::async_trait]
impl Images for DavitImages {
    type PullStream = ProgressStream;
    type ImportStream = ProgressStream;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let request = request.into_inner();
        let reference = filled("reference", request.reference)?;
        if !request.platform.is_empty() {
            return Err(
                Invalid::new("platform", "choosing another platform is not supported yet").into(),
            );
        }
        let auth = request.credentials.map(image::credentials);
        let engine = self.0.engine()?;
        Ok(Response::new(progress::stream(|sink| {
            pull(engine, reference, auth, sink)
        })))
    }

    async fn import(
        &self,
        request: Request<ImportRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let request = request.into_inner();
        let path = PathBuf::from(filled("path", request.path)?);
        if !path.is_absolute() {
            let problem = format!(
                "{path:?} is not absolute, and the daemon's working directory is not yours"
            );
            return Err(Invalid::new("path", problem).into());
        }
        let engine = self.0.engine()?;
        Ok(Response::new(progress::stream(|sink| {
            import(engine, path, request.reference, sink)
        })))
    }
}

async fn pull(
    engine: Engine,
    reference: String,
    auth: Option<engine::model::RegistryAuth>,
    sink: ProgressSink,
) -> Result<Vec<Progress>, Status> {
    let pulled = engine.pull_image(&reference, auth, Some(sink)).await;
    let pulled = pulled.map_err(status::from)?;
    let name = full_name(&pulled, &reference).unwrap_or(reference);
    Ok(vec![progress::image(pulled.id, name)])
}

/// The name in the store that `reference` stands for: `busybox` is `docker.io/library/busybox:latest`.
fn full_name(image: &Image, reference: &str) -> Option<String> {
    let wanted = [reference.to_owned(), format!("{reference}:latest")];
    let stands_for = |name: &str| {
        let mut endings = wanted.iter().filter_map(|wanted| name.strip_suffix(wanted));
        endings.any(|domain| domain.is_empty() || domain.ends_with('/'))
    };
    let mut names = image.repo_tags.iter().chain(&image.repo_digests);
    names.find(|name| stands_for(name)).cloned()
}

async fn import(
    engine: Engine,
    path: PathBuf,
    reference: String,
    sink: ProgressSink,
) -> Result<Vec<Progress>, Status> {
    let name = (!reference.is_empty()).then_some(reference.as_str());
    let imported = engine
        .import_image(&path, name, Some(sink))
        .await
        .map_err(status::from)?;
    let first_name = |tags: Vec<String>, digests: Vec<String>| {
        tags.into_iter().chain(digests).next().unwrap_or_default()
    };
    Ok(imported
        .into_iter()
        .map(|i| progress::image(i.id, first_name(i.repo_tags, i.repo_digests)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_reference_is_reported_by_its_full_name() {
        let image = Image {
            id: "sha256:1".into(),
            repo_tags: vec![
                "docker.io/library/mybusybox:latest".into(),
                "docker.io/library/busybox:latest".into(),
            ],
            repo_digests: vec!["docker.io/library/busybox@sha256:2".into()],
            size: 1,
            uid: None,
            username: String::new(),
            labels: std::collections::BTreeMap::new(),
            pinned: false,
            config_json: String::new(),
        };
        let full = |reference: &str| full_name(&image, reference);
        assert_eq!(
            full("busybox").as_deref(),
            Some("docker.io/library/busybox:latest")
        );
        assert_eq!(
            full("library/busybox:latest").as_deref(),
            Some("docker.io/library/busybox:latest")
        );
        assert_eq!(
            full("busybox@sha256:2").as_deref(),
            Some("docker.io/library/busybox@sha256:2")
        );
        assert_eq!(full("alpine"), None);
    }
}
