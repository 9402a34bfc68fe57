package cli

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCoarseTimers runs itself as the program, which has to have its slack after it has started itself once more, and only once.
func TestCoarseTimers(t *testing.T) {
	const command = "HANSE_TEST_TIMERS_OF"
	if args, ok := os.LookupEnv(command); ok {
		err := CoarseTimers(strings.Fields(args))
		slack, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		fmt.Println("process", os.Getpid(), "slack", time.Duration(slack), "error", err)
		os.Exit(0)
	}
	inherited, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := time.Duration(inherited)
	for args, want := range map[string]time.Duration{"serve --data x": max(own, timerSlack), "replay": max(own, timerSlack), "order get x": own, "": own} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCoarseTimers$")
		cmd.Env = append(os.Environ(), command+"="+args)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("hanse %s: %v\n%s", args, err, out)
		}
		if want := fmt.Sprintln("process", cmd.Process.Pid, "slack", want, "error", nil); string(out) != want {
			t.Errorf("hanse %s says %q, want %q", args, out, want)
		}
	}
}
