package cli_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// writeUploaded lists the files of an uploaded tar; other data count for nothing.
func writeUploaded(data []byte, w io.Writer) error {
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s %d\n", header.Name, header.Size)
	}
}
