mod app;
mod rooms;
