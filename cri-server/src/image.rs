//! CRI's ImageService.

use std::collections::BTreeMap;

use proto::runtime::v1::image_service_server::ImageService;
use proto::runtime::v1::*;
use tonic::{Request, Response, Status};

use crate::convert::{self, Invalid, image, not_empty};
use crate::node::Node;
use crate::runtime::streams::{Answers, in_messages};
use crate::status;

/// The service over a node's engine.
#[derive(Debug, Clone)]
pub(crate) struct Images(pub(crate) Node);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let spec = request.into_inner().filter.and_then(|filter| filter.image);
        let filter = spec.and_then(|spec| not_empty(spec.image));
        let images = self
            .0
            .engine()?
            .list_images(filter.as_deref())
            .await
            .map_err(status::from)?;
        Ok(Response::new(ListImagesResponse {
            images: images.into_iter().map(image::into).collect(),
        }))
    }

    /// Unknown image: OK, without one.
    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Answer<ImageStatusResponse> {
        let request = request.into_inner();
        let reference = image::reference(request.image)?;
        let found = self
            .0
            .engine()?
            .image_status(&reference)
            .await
            .map_err(status::from)?;
        let verbose = found
            .as_ref()
            .filter(|_| request.verbose)
            .map(image::verbose);
        let info = verbose.map_or_else(BTreeMap::new, |value| convert::info("info", &value));
        Ok(Response::new(ImageStatusResponse {
            image: found.map(image::into),
            info,
        }))
    }

    /// The answer is the image's id, the same as everywhere else.
    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        self.known_handler(request.image.as_ref())?;
        let reference = image::reference(request.image)?;
        let auth = request.auth.map(image::auth);
        let pulled = self
            .0
            .engine()?
            .pull_image(&reference, auth, None)
            .await
            .map_err(status::from_pull)?;
        Ok(Response::new(PullImageResponse {
            image_ref: pulled.id,
        }))
    }

    /// Unknown image: OK.
    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Answer<RemoveImageResponse> {
        let reference = image::reference(request.into_inner().image)?;
        self.0
            .engine()?
            .remove_image(&reference)
            .await
            .map_err(status::from)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    /// Writable layers are on the same file system as the images: both lists say so, as containerd's do.
    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let usage = self
            .0
            .engine()?
            .image_fs_info()
            .await
            .map_err(status::from)?;
        let image_filesystems = vec![image::usage(usage)];
        Ok(Response::new(ImageFsInfoResponse {
            container_filesystems: image_filesystems.clone(),
            image_filesystems,
        }))
    }

    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        let filter = request.into_inner().filter;
        let request = Request::new(ListImagesRequest { filter });
        let all = self.list_images(request).await?.into_inner().images;
        Ok(Response::new(in_messages(all, |images| {
            StreamImagesResponse { images }
        })))
    }
}

impl Images {
    /// CRI: "If the runtime handler is unknown, the request should be rejected." Images are the same for all handlers.
    fn known_handler(&self, spec: Option<&ImageSpec>) -> Result<(), Status> {
        let name = spec.map_or("", |spec| spec.runtime_handler.as_str());
        if name.is_empty()
            || self
                .0
                .engine()?
                .handlers()
                .iter()
                .any(|handler| handler.name == name)
        {
            return Ok(());
        }
        Err(Invalid::new(
            "image.runtime_handler",
            format!("{name:?} is not configured"),
        )
        .into())
    }
}
