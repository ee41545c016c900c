module berth.local/sandbox/pause

go 1.26.0
