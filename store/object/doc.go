// Package object says what kinds of objects the store holds, how they are found, and how they are named.
//
// It is not a model of its own: objects are the protobuf messages of package api, and this package only knows which of
// them are stored, their indexes, and which names are unique. Adding a kind means adding a field to api.StoredObject, a
// Kind with the number of that field, and a row to the table in kinds.go; the tests say what is missing.
//
// An id is 25 characters of base36 that encode 128 random bits, as Docker's are. Ids are never reused.
//
// Everything here is stateless and safe for concurrent use.
package object
