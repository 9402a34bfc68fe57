package cli

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late Linux may end a sleep of a busy process's threads, so that it ends several at once; Linux' own is 50 µs.
//
// It is for the thread with which Go's runtime looks after the others: as long as a process goes to sleep and wakes up a thousand times a
// second, as one that waits for syncs and messages does, that thread naps 20 µs at a time. On a virtual machine, where a nap costs as
// much as a small system call several times, these naps and the hand-overs that follow from them took a third of an order's processor
// time. What a node times are ticks of 50 ms, and pauses between attempts of 10 ms and more.
const timerSlack = 5 * time.Millisecond

// CoarseTimers gives the process its timer slack when the arguments are those of a command that works hard for long. A thread takes it
// over from the one that starts it, and the runtime's has been started before any code of a program runs; so the program is started once
// more, in the same process. It returns when there is nothing to do (any more), or with an error when that failed; then all is as before.
func CoarseTimers(args []string) error {
	if len(args) == 0 || !slices.Contains([]string{"serve", "dev", "psp", "replay", "bench"}, args[0]) {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("coarse timers: %w", err)
	}
	runtime.LockOSThread() // slack is a thread's
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || time.Duration(slack) >= timerSlack {
		return err // whoever has started this process may want more
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("coarse timers: %w", err)
	}
	return fmt.Errorf("coarse timers: start %s again: %w", program, syscall.Exec(program, os.Args, os.Environ()))
}
