package cli

import (
	"runtime"
	"syscall"
)

// hugePages asks Linux to back the first bytes of Go's heap with pages of 2 MiB; an error means that the kernel has none, and that all is as
// before. The runtime says nothing to the kernel about pages, and tells nobody where its heap will be. So the heap is made to grow that far at
// once, by an object that is never written: the kernel takes the advice for its addresses, and then they are free for other objects, lowest
// address first.
func hugePages(bytes int) error {
	err := adviseHuge(bytes)
	runtime.GC()
	return err
}

//go:noinline so that no slot of a caller's frame keeps the object
func adviseHuge(bytes int) error {
	return syscall.Madvise(make([]byte, bytes), syscall.MADV_HUGEPAGE)
}
