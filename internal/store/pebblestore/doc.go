// Package pebblestore keeps an engine's data on disk, in a Pebble database.
//
//	Apply ─▶ write-ahead log ─ sync ─▶ durable          DIR/*.log
//	   └───▶ memtable ─ flush ─▶ level 0 ─ compaction ─▶ ... level 6   DIR/*.sst
//	Replace ─▶ DIR/incoming/*.sst ─ excise the span and link the files, in one step ─┘
//
// Pebble keeps the write-ahead log's promises (atomic batches, a synced one makes all before it durable); this package
// adds those that the contract asks for beyond it. A snapshot survives the replacement of a span that it shows. The commit of
// a replacement syncs the log first, so that it never survives a crash that earlier batches do not. And a
// fault (a failed write or sync, corruption, a background job that cannot finish) goes to Config.OnFault, which ends the
// process: after a failed sync the page cache may claim to hold what the disk does not.
//
// Invariants: after a fault no write is acknowledged; one process at a time has the directory; DIR/incoming is empty
// unless a replacement is being written; a directory that is damaged, or written by a newer program, is refused
// and left as it is.
package pebblestore
