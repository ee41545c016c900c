module berth.local/sandbox/load

go 1.26.0
