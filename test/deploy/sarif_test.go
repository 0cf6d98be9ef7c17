package deploy

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	_ "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif" // for the schema in it
	"github.com/xeipuuv/gojsonschema"
)

// sarifSchema is the schema of SARIF 2.1.0 by OASIS, which go-sarif has as a constant of its own.
func sarifSchema(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := file.Scope.Lookup("schema").Decl.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value
	schema, err := strconv.Unquote(text)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// What npdctl lint writes is SARIF 2.1.0 by its schema.
func TestLintWritesSARIF(t *testing.T) {
	npdctl := filepath.Join(t.TempDir(), "npdctl")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", npdctl, "./cmd/npdctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	schema := gojsonschema.NewStringLoader(sarifSchema(t))
	validate := func(document string) []gojsonschema.ResultError {
		t.Helper()
		result, err := gojsonschema.Validate(schema, gojsonschema.NewStringLoader(document))
		if err != nil {
			t.Fatal(err)
		}
		return result.Errors()
	}
	out, err := exec.Command(npdctl, "lint", "-o", "sarif", "--severity", "note", "../../internal/npd/lint/testdata").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("lint: %v", err)
	}
	for _, e := range validate(string(out)) {
		t.Error(e)
	}
	if results := strings.Count(string(out), `"ruleId"`); results < 100 {
		t.Errorf("%d results", results)
	}
	if len(validate(strings.Replace(string(out), `"level": "warning"`, `"level": "bad"`, 1))) == 0 {
		t.Error("the schema takes anything")
	}
	out, err = exec.Command(npdctl, "lint", "-o", "sarif", "../../config").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range validate(string(out)) {
		t.Error(e)
	}
}
