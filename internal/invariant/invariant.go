package invariant

import "fmt"

// Violation is what [Check] panics with.
type Violation struct {
	// Message says what was expected and what was found.
	Message string
}

// Error makes a violation printable by whatever reports the panic.
func (v *Violation) Error() string { return "invariant violated: " + v.Message }

// Check panics with a [*Violation] unless ok. The message is formatted only then, but its arguments are
// evaluated always: keep them cheap.
func Check(ok bool, format string, args ...any) {
	if !ok {
		// The slow path lives elsewhere so that Check itself is inlined.
		violate(format, args)
	}
}

func violate(format string, args []any) {
	panic(&Violation{Message: fmt.Sprintf(format, args...)})
}
