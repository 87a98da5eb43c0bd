package unpack

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// distribution is a layer shaped like a small distribution: files of 100 bytes
// to 2 MiB, text that compresses about threefold.
func distribution(b *testing.B, files, maxSize int) []byte {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]byte, maxSize)
	for i := range words {
		words[i] = "etaoinshrdlu \n"[random.IntN(14)]
	}
	entries := make([]ent, 0, files+files/20)
	for i := range files {
		dir := fmt.Sprintf("usr/share/d%d", i/20)
		if i%20 == 0 {
			entries = append(entries, dirEnt(dir, 0o755))
		}
		from := random.IntN(maxSize)
		to := from + min(100+random.IntN(maxSize), maxSize-from)
		entries = append(entries, file(fmt.Sprintf("%s/f%d", dir, i), string(words[from:to])))
	}
	return tarOf(b, entries...)
}

func benchmarkRun(b *testing.B, data, blob []byte) {
	base := scratch(b)
	b.SetBytes(int64(len(data)))
	diffID, path := digest.FromBytes(data), filepath.Join(base, "blob")
	if err := os.WriteFile(path, blob, 0o600); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		dir := subdir(b, base, fmt.Sprint(n))
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Run(b.Context(), Request{Blob: f, DiffID: diffID, Dir: dir}); err != nil {
			b.Fatal(err)
		}
		f.Close()
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}

// BenchmarkRun measures whole layers: sandbox, decompression, both hashes and
// files, in bytes of the uncompressed tar, on tmpfs.
func BenchmarkRun(b *testing.B) {
	large, small := distribution(b, 400, 1<<20), distribution(b, 20_000, 2_000)
	b.Run("large/tar", func(b *testing.B) { benchmarkRun(b, large, large) })
	b.Run("large/gzip", func(b *testing.B) { benchmarkRun(b, large, gzipped(b, large)) })
	b.Run("large/zstd", func(b *testing.B) { benchmarkRun(b, large, zstded(b, large)) })
	b.Run("small/tar", func(b *testing.B) { benchmarkRun(b, small, small) })
	b.Run("tiny/tar", func(b *testing.B) {
		tiny := tarOf(b, file("hello", "hi"))
		benchmarkRun(b, tiny, tiny)
	})
}

// BenchmarkGNUTar is the yardstick: the same layers by tar, which hashes nothing.
func BenchmarkGNUTar(b *testing.B) {
	program, err := exec.LookPath("tar")
	if err != nil {
		b.Skip("needs GNU tar")
	}
	large, small := distribution(b, 400, 1<<20), distribution(b, 20_000, 2_000)
	for _, tt := range []struct {
		name       string
		size       int
		blob       []byte
		compressed string
	}{
		{"large/tar", len(large), large, "-xpf"},
		{"large/gzip", len(large), gzipped(b, large), "-xzpf"},
		{"small/tar", len(small), small, "-xpf"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			base := scratch(b)
			blob := filepath.Join(base, "blob")
			if err := os.WriteFile(blob, tt.blob, 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(tt.size))
			for n := 0; b.Loop(); n++ {
				dir := subdir(b, base, fmt.Sprint(n))
				if out, err := exec.Command(program, tt.compressed, blob, "-C", dir).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				b.StopTimer()
				os.RemoveAll(dir)
				b.StartTimer()
			}
		})
	}
}
