/* module.c: counterfoil._native, its types and its state. */
#include "native.h"

static int names_make(cfpy_names *names)
{
#define MAKE_1(name)       if ((names->name = PyUnicode_InternFromString(#name)) == NULL) return -1;
#define MAKE_2(name, text) if ((names->name = PyUnicode_InternFromString(text)) == NULL) return -1;
#define MAKE(...)          CFPY_PICK(__VA_ARGS__, MAKE_2, MAKE_1, )(__VA_ARGS__)
    CFPY_NAMES(MAKE)
    return 0;
}

static PyObject *imported(const char *module, const char *name)
{
    PyObject *found = PyImport_ImportModule(module);
    PyObject *object = found ? PyObject_GetAttrString(found, name) : NULL;
    Py_XDECREF(found);
    return object;
}

static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec, bool shown)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && shown && PyModule_AddType(module, type) < 0)
        Py_CLEAR(type);
    return type;
}

static int module_exec(PyObject *module)
{
    cfpy_state *state = PyModule_GetState(module);
    if (names_make(&state->names) < 0)
        return -1;
    state->hosts = PyDict_New();
    state->make_error = imported("counterfoil.errors", "make");
    PyObject *backend = imported("counterfoil.backend", "Backend");
    state->keep = backend ? PyObject_GetAttrString(backend, "KEEP") : NULL;
    Py_XDECREF(backend);
    state->datetime = imported("datetime", "datetime");
    if (state->hosts == NULL || state->make_error == NULL || state->keep == NULL || state->datetime == NULL)
        return -1;
    state->store_type = make_type(module, &cfpy_store_spec, true);
    state->async_store_type = make_type(module, &cfpy_async_store_spec, true);
    state->op_type = make_type(module, &cfpy_op_spec, true);
    state->waiter_type = make_type(module, &cfpy_waiter_spec, false);
    state->stage_type = make_type(module, &cfpy_stage_spec, true);
    state->host_type = make_type(module, &cfpy_host_spec, false);
    if (state->store_type == NULL || state->async_store_type == NULL || state->op_type == NULL || state->waiter_type == NULL ||
        state->stage_type == NULL || state->host_type == NULL)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    cfpy_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    Py_VISIT((PyObject *)state->store_type);
    Py_VISIT((PyObject *)state->async_store_type);
    Py_VISIT((PyObject *)state->op_type);
    Py_VISIT((PyObject *)state->waiter_type);
    Py_VISIT((PyObject *)state->stage_type);
    Py_VISIT((PyObject *)state->host_type);
    Py_VISIT(state->make_error);
    Py_VISIT(state->running_loop);
    Py_VISIT(state->task_type);
    Py_VISIT(state->cancelled);
    Py_VISIT(state->keep);
    Py_VISIT(state->datetime);
    Py_VISIT(state->hosts);
    return cfpy_op_visit(state, visit, arg);
}

/* The names stay until module_free: stores that are collected with the module still close their backends by name. */
static int module_clear(PyObject *module)
{
    cfpy_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    Py_CLEAR(state->store_type);
    Py_CLEAR(state->async_store_type);
    Py_CLEAR(state->op_type);
    Py_CLEAR(state->waiter_type);
    Py_CLEAR(state->stage_type);
    Py_CLEAR(state->host_type);
    Py_CLEAR(state->make_error);
    Py_CLEAR(state->running_loop);
    Py_CLEAR(state->task_type);
    Py_CLEAR(state->cancelled);
    Py_CLEAR(state->keep);
    Py_CLEAR(state->datetime);
    Py_CLEAR(state->hosts);
    cfpy_op_forget(state);
    return 0;
}

static void module_free(void *module)
{
    cfpy_state *state = PyModule_GetState(module);
    if (state == NULL)
        return;
    module_clear(module);
#define FREE_1(name)       Py_CLEAR(state->names.name);
#define FREE_2(name, text) Py_CLEAR(state->names.name);
#define FREE(...)          CFPY_PICK(__VA_ARGS__, FREE_2, FREE_1, )(__VA_ARGS__)
    CFPY_NAMES(FREE)
}

PyDoc_STRVAR(version_doc, "version()\n--\n\nThe version of the native library, for example '0.1.0'.");
static PyObject *module_version(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(cf_version());
}

PyDoc_STRVAR(ttl_ms_doc, "ttl_ms(seconds, /)\n--\n\nA ttl in seconds as whole milliseconds; InvalidError when it is none.");
static PyObject *module_ttl_ms(PyObject *module, PyObject *seconds)
{
    int64_t ms;
    if (cfpy_ttl(PyModule_GetState(module), seconds, &ms) < 0)
        return NULL;
    return PyLong_FromLongLong(ms);
}

PyDoc_STRVAR(tell_doc, "tell(callback, argument, /)\n--\n\n"
                       "Calls callback(argument). What it raises goes to sys.unraisablehook, but for a Ctrl-C, which stays one.");
static PyObject *module_tell(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "tell() takes 2 arguments");
        return NULL;
    }
    PyObject *done = PyObject_CallFunctionObjArgs(args[0], args[1], NULL);
    if (done == NULL)
        cfpy_nobodys(args[0]);
    Py_XDECREF(done);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"version", module_version, METH_NOARGS, version_doc},
    {"ttl_ms", module_ttl_ms, METH_O, ttl_ms_doc},
    {"tell", CFPY_METHOD(module_tell), METH_FASTCALL, tell_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, CFPY_SLOT(module_exec)},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "counterfoil._native",
    .m_doc = "The native part of counterfoil. Use the package counterfoil, not this module.",
    .m_size = sizeof(cfpy_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
