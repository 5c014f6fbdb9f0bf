//! One module per subject, named like its programs and its sampler.
