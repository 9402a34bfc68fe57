package dirlock

import (
	"errors"
	"testing"
)

func TestADirectoryHasOneUser(t *testing.T) {
	dir := t.TempDir()
	first, err := Take(dir, "the first")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(dir, "the second")
	if held, ok := errors.AsType[*HeldError](err); !ok || err.Error() != dir+" is used by the first" {
		t.Errorf("Take = %v (%v), want that the first has it", err, held)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	third, err := Take(dir, "the third, longer than the first")
	if err != nil {
		t.Fatalf("after the first has let go: %v", err)
	}
	defer third.Release()
	if _, err = Take(dir, "the fourth"); err == nil || err.Error() != dir+" is used by the third, longer than the first" {
		t.Errorf("Take = %v, want that the third has it", err)
	}
}

func TestOnlyADirectoryThatIsThereIsTaken(t *testing.T) {
	_, err := Take(t.TempDir()+"/none", "nobody")
	if _, held := errors.AsType[*HeldError](err); err == nil || held {
		t.Errorf("Take = %v, want that it is not there", err)
	}
}
