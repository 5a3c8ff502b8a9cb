/* tuple.__new__(cls, values) for named tuples, as vmm_ras/_new in the compiled copy: most of an event's objects.

   A tuple that only the caller holds, as that of new(cls, (a, b)), becomes the instance itself: an instance of a class
   that adds nothing to tuple has the same layout.  Any other one is copied, as tuple.__new__ does.

   When such an instance is dropped it becomes a tuple again: tuples keep their memory for the next one. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static int adds_nothing(const PyTypeObject *cls)
{
    return cls->tp_base == &PyTuple_Type && cls->tp_basicsize == PyTuple_Type.tp_basicsize
        && cls->tp_itemsize == PyTuple_Type.tp_itemsize && cls->tp_flags & Py_TPFLAGS_HEAPTYPE
        && cls->tp_dictoffset == 0 && cls->tp_finalize == NULL && cls->tp_del == NULL;
}

#ifndef Py_GIL_DISABLED
static void drop(PyObject *self)
{
    PyTypeObject *cls = Py_TYPE(self);
    if (cls->tp_dealloc == drop) /* else it is of a class that inherits, and may be larger than a tuple */
        Py_SET_TYPE(self, &PyTuple_Type);
    PyTuple_Type.tp_dealloc(self);
    Py_DECREF(cls);
}
#endif

static PyObject *new(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyType_Check(args[0]) || !PyType_IsSubtype((PyTypeObject *)args[0], &PyTuple_Type)
        || !PyTuple_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "new(cls, values): expected a class of tuples, and a tuple");
        return NULL;
    }
    PyTypeObject *cls = (PyTypeObject *)args[0];
#ifndef Py_GIL_DISABLED
    if (Py_REFCNT(args[1]) == 1 && adds_nothing(cls)) {
        cls->tp_dealloc = drop;
        Py_INCREF(cls); /* an instance of a class that was made at run time holds it */
        Py_SET_TYPE(args[1], cls);
        Py_INCREF(args[1]);
        return args[1];
    }
#endif
    PyObject *values = PyTuple_Pack(1, args[1]);
    PyObject *made = values == NULL ? NULL : PyTuple_Type.tp_new(cls, values, NULL);
    Py_XDECREF(values);
    return made;
}

static PyMethodDef methods[] = {
    {"new", (PyCFunction)(void (*)(void))new, METH_FASTCALL, "The instance of a named tuple with these values."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_new", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__new(void)
{
    return PyModule_Create(&definition);
}
