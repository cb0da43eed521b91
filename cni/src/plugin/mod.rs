//! The plugins of this project.
