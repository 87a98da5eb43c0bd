package contexts

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/skep-io/skep/internal/fault"
)

// maxEntries bounds the entries of an archive: more are not a context's.
const maxEntries = 16

// Export writes a context as a tar. Whoever has it is the user whom its certificate names.
func Export(w io.Writer, c Context) error {
	files, err := filesOf(c)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, name := range fileNames() {
		data, ok := files[name]
		if !ok {
			continue
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))}
		err := archive.WriteHeader(header)
		if err == nil {
			_, err = archive.Write(data)
		}
		if err != nil {
			return fmt.Errorf("write context %q: %w", c.Name, err)
		}
	}
	return archive.Close()
}

// Import reads what Export wrote. What else is in the archive is refused, and no name in it is a path of anything (X3).
func Import(r io.Reader) (Context, error) {
	files := map[string][]byte{}
	archive := tar.NewReader(r)
	for range maxEntries {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if files[metaFile] == nil {
				return Context{}, badArchive("it has no " + metaFile)
			}
			return fromFiles(files)
		}
		if err != nil {
			return Context{}, badArchive(err.Error())
		}
		if header.Typeflag != tar.TypeReg || !slices.Contains(fileNames(), header.Name) || files[header.Name] != nil {
			return Context{}, badArchive(fmt.Sprintf("it has an entry %q", header.Name))
		}
		if header.Size > maxFile {
			return Context{}, badArchive(fmt.Sprintf("%s is over %d bytes", header.Name, maxFile))
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			return Context{}, badArchive(err.Error())
		}
	}
	return Context{}, badArchive("it has too many entries")
}

func badArchive(why string) error {
	return fault.New(fault.Invalid, "this is no exported context: %s: use a file of `skep context export` or `skep user create`", why)
}
