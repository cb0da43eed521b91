//! Tables over the whole of config.json.
