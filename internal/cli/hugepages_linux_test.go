package cli

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

func TestHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil {
		t.Skip("this kernel was built without transparent huge pages, which distributions' kernels have:", err)
	}
	if err := hugePages(64 << 20); err != nil {
		t.Fatal(err)
	}
	object := make([]byte, 16<<20)
	at := uint64(uintptr(unsafe.Pointer(&object[len(object)/2]))) // it may begin in free pages below
	if flags := vmFlags(t, at); !strings.Contains(flags, " hg") {
		t.Errorf("the heap at %#x has the flags %q, want hg among them", at, flags)
	}
}

// vmFlags returns the flags of this process's mapping that has an address.
func vmFlags(t *testing.T, at uint64) string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	begins := regexp.MustCompile(`^([0-9a-f]+)-([0-9a-f]+) `)
	inside := false
	for line := range strings.Lines(string(maps)) {
		if m := begins.FindStringSubmatch(line); m != nil {
			from, _ := strconv.ParseUint(m[1], 16, 64)
			to, _ := strconv.ParseUint(m[2], 16, 64)
			inside = from <= at && at < to
		} else if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return flags
		}
	}
	t.Fatalf("no mapping has %#x", at)
	return ""
}
