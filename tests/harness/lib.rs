//! Harness of the black-box tests: virtual machines, BMCs, image servers, artifacts.
