package invariant

import "testing"

func TestCheckPanicsOnlyWhenBroken(t *testing.T) {
	catch := func(ok bool) (v *Violation) {
		defer func() { v, _ = recover().(*Violation) }()
		Check(ok, "held %d of %d", 3, 2)
		return nil
	}
	if v := catch(true); v != nil {
		t.Errorf("Check(true) panicked: %v", v)
	}
	v := catch(false)
	if v == nil {
		t.Fatal("Check(false) did not panic with a *Violation")
	}
	if got, want := v.Error(), "invariant violated: held 3 of 2"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}
