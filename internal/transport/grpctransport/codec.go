package grpctransport

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// rawCodec passes bytes through. Sent frames come from mem.DefaultBufferPool and go back there once written;
// received ones are copied out of gRPC's buffers once, for messages alias them.
type rawCodec struct{}

func (rawCodec) Name() string { return "hanse-frame" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("grpctransport: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.NewBuffer(frame, mem.DefaultBufferPool())}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	frame, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("grpctransport: cannot receive into a %T", v)
	}
	*frame = data.Materialize()
	return nil
}
