//! Fast CPU operations for convolutional networks.
