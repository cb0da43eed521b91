//! The engine's operations on images.

use std::path::Path;

use super::Engine;
use crate::error::Result;
use crate::images;
use crate::model::{FsUsage, Image, ProgressSink, RegistryAuth};

impl Engine {
    /// Pulls an image.
    ///
    /// # Errors
    /// See [`crate::Error::Images`] and its kind.
    pub async fn pull_image(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        progress: Option<ProgressSink>,
    ) -> Result<Image> {
        images::pull(&self.node.store, reference, auth, progress).await
    }

    /// Imports an OCI layout or docker-archive (directory or tar file), named `reference` when given.
    ///
    /// # Errors
    /// See [`crate::Error::Images`] and its kind.
    pub async fn import_image(
        &self,
        path: &Path,
        reference: Option<&str>,
        progress: Option<ProgressSink>,
    ) -> Result<Vec<Image>> {
        images::import(&self.node.store, path, reference, progress).await
    }

    /// An image by id, beginning of an id, tag, digest or short name; `None` when it is not on the node.
    ///
    /// # Errors
    /// A reference that is none, or the store cannot be read.
    pub async fn image_status(&self, reference: &str) -> Result<Option<Image>> {
        images::status(&self.node.store, reference).await
    }

    /// All images, or those that `filter` names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_images(&self, filter: Option<&str>) -> Result<Vec<Image>> {
        images::list(&self.node.store, filter).await
    }

    /// Removes an image with all its tags and digests. Unknown: success. Layers that containers use stay
    /// until they are gone.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        images::remove(&self.node.store, reference).await
    }

    /// How much the images take.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn image_fs_info(&self) -> Result<FsUsage> {
        images::usage(&self.node.store).await
    }
}
