// Package metashard keeps what all nodes must agree on: who they are.
//
//	node starts ─▶ counts its starts, on its own disk ─▶ Register(boot, process) ─┬─▶ boot is new: noted
//	                                                                              ├─▶ the same start again: the same answer
//	                                                                              └─▶ stale_node: the node stops
//
// A boot number below the known one, or the known one from another process, belongs to an old copy of the node's
// directory, which has forgotten votes and acknowledgements: it is refused, and the node must not serve.
//
// Known flaw: a copy taken since the node's last start, and put back, counts on to a number that nobody has seen. That it is old
// is then only found out by Raft, when its leader knows of entries that it does not have.
package metashard
