//! (room not filled yet)
