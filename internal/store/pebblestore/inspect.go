package pebblestore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes the first record that it cannot read, of the manifest and, within a block, of the log, for the torn last one, and goes on
// without what comes after. What is here finds out whether something does.

// inspectManifest refuses a manifest that is damaged before its end. Pebble would go on with an older list of tables; the tables that only newer
// records name it deletes.
func (s *Store) inspectManifest(name string) error {
	content, err := s.content(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	if at := unreadable(content); at >= 0 && anyChunk(content[at+1:]) {
		return fmt.Errorf("%w (%s is not readable from byte %d on, and does not end there)", ErrDamaged, name, at)
	}
	return nil
}

// Manifest and log are sequences of blocks of 32 KiB, in which chunks follow one another: a checksum of 4 bytes, the length of the payload
// in 2, a type in 1, 1 to 4 in the manifest, and the payload. The last bytes of a block that cannot hold a chunk's header are zero. In the log
// the type is 9 to 12, and the number of the log follows, in 4 bytes, and up to where the log had been synced when the chunk was written, in 8.
const (
	blockBytes       = 32 << 10
	chunkHeaderBytes = 7
	logHeaderBytes   = chunkHeaderBytes + 12
)

// unreadable returns where the first chunk begins that is not as it was written, or -1.
func unreadable(content []byte) int {
	for at := 0; at < len(content); {
		if left := blockBytes - at%blockBytes; left < chunkHeaderBytes {
			at += left
			continue
		}
		n := chunkBytes(content[at:])
		if n == 0 {
			return at
		}
		at += n
	}
	return -1
}

// anyChunk reports whether a sound chunk begins anywhere.
func anyChunk(content []byte) bool {
	for i := range content {
		if chunkBytes(content[i:]) > 0 {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkBytes returns the size of the chunk that p begins with, 0 if it is not sound.
func chunkBytes(p []byte) int {
	if len(p) < chunkHeaderBytes || p[6] < 1 || p[6] > 4 {
		return 0
	}
	return soundBytes(p, chunkHeaderBytes)
}

// soundBytes returns the size of a chunk with a header of some bytes, 0 if its checksum is not right.
func soundBytes(p []byte, header int) int {
	end := header + int(binary.LittleEndian.Uint16(p[4:]))
	if end > len(p) {
		return 0
	}
	// LevelDB's mask, for checksums of data that hold checksums.
	sum := crc32.Checksum(p[6:end], castagnoli)
	if binary.LittleEndian.Uint32(p) != (sum>>15|sum<<17)+0xa282ead8 {
		return 0
	}
	return end
}

// inspectLogs refuses a log that is damaged before its end: where it was synced, as later chunks say, it has to be readable.
func (s *Store) inspectLogs() error {
	dir := cmp.Or(s.cfg.WALDir, s.dir)
	names, err := s.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, isLog := strings.CutSuffix(name, ".log")
		number, err := strconv.ParseUint(digits, 10, 64)
		if !isLog || err != nil {
			continue
		}
		content, err := s.content(s.fs.PathJoin(dir, name))
		if err != nil {
			return err
		}
		if at := damage(content, uint32(number)); at >= 0 {
			return fmt.Errorf("%w (%s is not readable from byte %d on, and was synced further)", ErrDamaged, name, at)
		}
	}
	return nil
}

// damage returns where the log of a number stops to be readable although more of it had been synced, -1 if it does not.
func damage(content []byte, number uint32) int {
	end := logEnd(content, number)
	for i := end + 1; i < len(content); i++ {
		if n, synced := logChunk(content[i:], number); n > 0 && synced > uint64(end) {
			return end
		}
	}
	return -1
}

// logEnd returns where the first chunk of the log begins that is not as it was written.
func logEnd(content []byte, number uint32) int {
	at := 0
	for at < len(content) {
		left := min(blockBytes-at%blockBytes, len(content)-at)
		n, _ := logChunk(content[at:at+left], number)
		switch {
		case n > 0:
			at += n
		case left < logHeaderBytes && strings.Trim(string(content[at:at+left]), "\x00") == "":
			at += left
		default:
			return at
		}
	}
	return at
}

// logChunk returns the size of the log's chunk that p begins with, 0 if it is none, and up to where the log had been synced before.
func logChunk(p []byte, number uint32) (size int, synced uint64) {
	if len(p) < logHeaderBytes || p[6] < 9 || p[6] > 12 || binary.LittleEndian.Uint32(p[chunkHeaderBytes:]) != number {
		return 0, 0
	}
	return soundBytes(p, logHeaderBytes), binary.LittleEndian.Uint64(p[chunkHeaderBytes+4:])
}

// content reads a file.
func (s *Store) content(name string) ([]byte, error) {
	f, err := s.fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
