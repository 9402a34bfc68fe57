// Package storetest is the suite that every implementation of store.Engine passes.
//
//	newDisk ─▶ Disk ─ Open ─▶ store.Engine ─ writes ─▶ ... ─ Crash(rng) ─▶ Open ─▶ a prefix of the writes
//
// The simulator runs on store/memstore and production on store/pebblestore; what the simulator finds out
// is worth something in production because both keep the same promises here, those about crashes included. The last
// test plays random histories against a sorted map and lets the disk crash in between.
package storetest
