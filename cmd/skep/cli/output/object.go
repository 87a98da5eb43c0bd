package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
)

// Objects writes objects one after another: by the template in format, as one JSON object a line for "json", and as one
// indented JSON array for "".
func Objects[T any](w io.Writer, format string, objects []T) error {
	switch format {
	case "":
		return Array(w, objects)
	case "json":
		return writeJSONLines(w, objects)
	}
	row, err := parse(format)
	if err != nil {
		return err
	}
	return writeRows(w, row, objects)
}

// Array writes objects as one indented JSON array, which is [] when there are none.
func Array[T any](w io.Writer, objects []T) error {
	if objects == nil {
		objects = []T{}
	}
	return Indented(w, objects)
}

// Indented writes v as indented JSON.
func Indented(w io.Writer, v any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write %s as JSON: %w", reflect.TypeOf(v), err)
	}
	_, err := w.Write(b.Bytes())
	return err
}
